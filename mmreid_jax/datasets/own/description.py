"""What a data set of one's own is: a small file beside its records, which makes it a `Dataset` like any other."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from mmreid_jax.data.captions import TextForm
from mmreid_jax.datasets import disk
from mmreid_jax.datasets.base import Dataset, Known
from mmreid_jax.errors import UserError, printable
from mmreid_jax.paths import OWN, own_description, own_names, path_of, read_json
from mmreid_jax.retrieval import protocols
from mmreid_jax.retrieval.distances import Kind
from mmreid_jax.retrieval.protocols import Protocol

MODALITIES = ("rgb", "nir", "tir")
"""All that there may be, in the order of concatenation."""
SPLITS = ("train", "query", "gallery")
CAPTIONER = "own"
"""Who wrote the captions of a table, for ``config.data.captioner``."""
DISTANCE: Kind = "squared_euclidean"
"""Of all protocols of such data sets."""
Samples = Mapping[str, Sequence[disk.Sample]]
"""Split -> its samples."""
_SOURCE = "It is your own."
_NAME = r"[a-z][a-z0-9_]*"


@dataclasses.dataclass(frozen=True)
class Description:
    """A data set of one's own.

    Attributes:
      name: without `OWN`.
      modalities: of `MODALITIES`, in that order.
      aligned: whether a sample is seen by all modalities at once; else it is one image, visible or infrared.
      cameras: names of the cameras as they were written, in the order of their numbers; empty where they are unknown.
      counts: split -> (samples, identities).
      split: how the splits came about, in words.
      captions: whether its images have captions, whose captioner is called `CAPTIONER`.
    """

    name: str
    modalities: tuple[str, ...]
    aligned: bool
    cameras: tuple[str, ...]
    counts: Mapping[str, tuple[int, int]]
    split: str
    captions: bool = False

    @property
    def full_name(self) -> str:
        """The name by which it is asked for."""
        return f"{OWN}{self.name}"

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """Its protocols, the usual one first: by cameras where they are known, and of unaligned spectra both ways."""
        known = bool(self.cameras)
        rule = Protocol(
            "own" if known else "own_without_cameras",
            removes="same_identity_same_camera" if known else "cameras_unknown",
            distance=DISTANCE,
        )
        if self.aligned:
            return (rule,)
        both = {"ir_to_vis": protocols.INFRARED_SEARCHES, "vis_to_ir": protocols.VISIBLE_SEARCHES}
        return tuple(
            dataclasses.replace(rule, name=f"{rule.name}_{name}", direction=direction)
            for name, direction in both.items()
        )

    @property
    def kind(self) -> str:
        """Which images there are, in words."""
        if len(self.modalities) == 1:
            return f"{self.modalities[0]} images"
        if self.aligned:
            return f"{len(self.modalities)} aligned images of each sample ({', '.join(self.modalities)})"
        return f"single images, {' or '.join(self.modalities)}"

    def to_json(self) -> bytes:
        """The content of the file beside the records."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=True).encode()

    @classmethod
    def read(cls, path: pathlib.Path) -> Description:
        """The description in a file that `to_json` wrote.

        Raises:
          UserError: it is damaged.
        """
        try:
            content = read_json(path)
            for key in ("modalities", "cameras"):
                content[key] = tuple(content[key])
            content["counts"] = {split: tuple(content["counts"][split]) for split in SPLITS}
            read = cls(**content)
            if not set(read.modalities) <= set(MODALITIES) or not read.modalities:
                raise ValueError(f"modalities {read.modalities}")
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{printable(path)} is damaged ({error}); prepare the data again with --force") from None
        return read


def is_own(dataset: str) -> bool:
    """Whether the name is that of a data set of one's own."""
    return dataset.startswith(OWN)


def check_name(name: str) -> str:
    """The name without `OWN`, if one may have it; else `UserError`."""
    bare = name.removeprefix(OWN)
    if not re.fullmatch(_NAME, bare):
        raise UserError(
            f"{printable(name)!r} cannot name a data set; take small letters, digits and _, as in {OWN}my_people"
        )
    return bare


def folder_of(dataset: str, data_dir: str | os.PathLike[str]) -> pathlib.Path:
    """Where the records of ``own:NAME`` lie once prepared."""
    return own_description(f"{OWN}{check_name(dataset)}", data_dir).parent


def find(dataset: str, data_dir: str | os.PathLike[str]) -> Dataset:
    """The data set ``own:NAME`` that was prepared in `data_dir`.

    Raises:
      UserError: there is none; says how to prepare it.
    """
    name = check_name(dataset)
    path = own_description(dataset, data_dir)
    if not path.is_file():
        known = own_names(data_dir)
        there = f"there are {', '.join(known)}" if known else "there is none of one's own"
        raise UserError(
            f"{dataset} is not prepared in {path_of(data_dir).absolute()} ({there}); prepare it once: python -m "
            f"mmreid_jax prepare --folder DIR --name {name} --data_dir {path_of(data_dir)} (or --csv FILE), or name "
            "the folder of prepared data with --config.data.data_dir"
        )
    return described(Description.read(path))


class _Own:
    """What the folders of a data set of one's own say instead of those of a published one."""

    name: str
    listed: Samples | None

    @property
    def tree(self) -> str:
        """The expected folders in one line."""
        return "that of your folder or table"

    @property
    def instructions(self) -> str:
        """How to prepare it, in one sentence."""
        name = self.name.removeprefix(OWN)
        return f"Prepare it again: python -m mmreid_jax prepare --folder DIR --name {name} --force (or --csv FILE)."

    @property
    def without_data(self) -> str:
        """There is nothing else to go on with."""
        return "docs/own_data.md says more."

    @property
    def stated(self) -> str:
        """The labels and splits, which may stand in a table beside the files."""
        rows = (
            f"{split}\t{sample.file}\t{sample.labels}\t{sample.modality}"
            for split, samples in (self.listed or {}).items()
            for sample in samples
        )
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    usual_captioners: ClassVar[tuple[str, ...]] = (CAPTIONER,)

    def captioners(self, root: pathlib.Path) -> tuple[str, ...]:
        """The table, where it has captions."""
        del root
        return (CAPTIONER,) if any(sample.text for sample in self._every_sample) else ()

    def text_fingerprint(self, root: pathlib.Path, captioner: str) -> str:
        """See `disk.SingleFolders`."""
        del root, captioner
        return hashlib.sha256(repr([sample.text for sample in self._every_sample]).encode()).hexdigest()

    def with_texts(
        self, root: pathlib.Path, captioner: str, split: str, samples: Sequence[disk.Sample]
    ) -> list[disk.Sample]:
        """The samples, which have their texts already."""
        del root, captioner, split
        return list(samples)

    @property
    def _every_sample(self) -> list[disk.Sample]:
        return [sample for samples in (self.listed or {}).values() for sample in samples]

    def of_split(self, split: str) -> list[disk.Sample]:
        """The samples of a split.

        Raises:
          UserError: the data set was opened by its name, so that its files are not known.
        """
        if self.listed is None:
            raise UserError(f"{self.name}: only its records are known here. {self.instructions}")
        return list(self.listed[split])


@dataclasses.dataclass(frozen=True)
class AlignedOwn(_Own, disk.AlignedFolders):
    """Aligned images, or those of one modality alone.

    Attributes:
      listed: split -> its samples; None where the data set was opened by its name.
    """

    jpeg_only: ClassVar[bool] = False
    listed: Samples | None = None

    def missing(self, root: pathlib.Path) -> list[pathlib.Path]:
        """What the root lacks: itself, or nothing."""
        return [] if root.is_dir() else [root]

    def samples(self, root: pathlib.Path, split: str) -> list[disk.Sample]:
        """See `_Own.of_split`."""
        return self.of_split(split)


@dataclasses.dataclass(frozen=True)
class SingleOwn(_Own, disk.SingleFolders):
    """Visible and infrared images that belong together by identity alone.

    Attributes:
      listed: see `AlignedOwn`.
    """

    listed: Samples | None = None

    def missing(self, root: pathlib.Path) -> list[pathlib.Path]:
        """What the root lacks: itself, or nothing."""
        return [] if root.is_dir() else [root]

    def samples(self, root: pathlib.Path, split: str) -> list[disk.Sample]:
        """See `_Own.of_split`."""
        return self.of_split(split)


def described(
    description: Description,
    listed: Samples | None = None,
    beside: Callable[[Samples], Mapping[str, bytes]] | None = None,
) -> Dataset:
    """The data set of a description.

    Args:
      description: of the data set.
      listed: split -> its samples, where they are to be prepared.
      beside: see `Dataset.beside`.
    """
    folders: disk.Folders
    if description.aligned:
        folders = AlignedOwn(
            name=description.full_name,
            folder="",
            source=_SOURCE,
            labels=_no_labels,
            splits={split: split for split in SPLITS},
            images={modality: modality for modality in description.modalities},
            file_form="any",
            listed=listed,
        )
    else:
        visible, infrared = description.modalities
        folders = SingleOwn(
            name=description.full_name,
            folder="",
            source=_SOURCE,
            labels=_no_labels,
            expected="",
            required=(),
            list_split=lambda folders, root, split: folders.samples(root, split),
            query=infrared,
            gallery=visible,
            listed=listed,
        )
    return Dataset(
        name=description.name,
        description=f"A data set of one's own: {description.kind}.",
        citation="",
        folders=folders,
        protocols=description.protocols,
        published={split: Known(*description.counts[split]) for split in SPLITS},
        captions=TextForm("") if description.captions else None,
        version=own_description(description.name, ".").parent.name,
        beside=beside,
    )


def _no_labels(stem: str) -> disk.NameLabels:
    """Names mean nothing by themselves: which pattern they had is not kept."""
    raise ValueError(f"{stem!r} says nothing")
