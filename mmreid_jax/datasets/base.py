"""What a data set is: one value that says where its files lie, what is known of it, how it is scored and drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from mmreid_jax.data.captions import TextForm
from mmreid_jax.data.records import View
from mmreid_jax.datasets import manifests
from mmreid_jax.datasets.disk import Folders, Sample, SingleFolders
from mmreid_jax.drawn.drawings import Drawing
from mmreid_jax.errors import UserError
from mmreid_jax.retrieval.protocols import Protocol


@dataclasses.dataclass(frozen=True)
class Known:
    """What is known of a split.

    Attributes:
      samples: number of samples that a complete copy has, None if unknown.
      identities: number of identities of a complete copy, None if unknown.
      list_split: split of the public list that holds the names, None if there is no list.
      part_of_list: True when the names are some of that list, not all.
      unverified: numbers from the literature that no list confirms, for display: (samples, identities), either None.
    """

    samples: int | None = None
    identities: int | None = None
    list_split: str | None = None
    part_of_list: bool = False
    unverified: tuple[int | None, int | None] = (None, None)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set, or with `part` one of the splits of its identities.

    Attributes:
      name: that of the module which defines it.
      description: what it holds, in a few sentences.
      citation: BibTeX.
      folders: where its files lie and how samples are listed; those of `part` where there are parts.
      protocols: those that publications use, the usual one first.
      published: split -> what is known of it, if anything is. Sources: public file lists and the papers.
      peculiar_protocols: others that can be asked for by name, for comparison with one publication.
      drawing: how it is drawn; None where it cannot be.
      captions: how texts about its images are written; None where there are none.
      composites: where several modalities lie side by side in a file, name of a way to cut it -> modality -> view;
        the usual way first. Empty where every image is of one modality.
      composite_key: key of ``config.data`` that names one of `composites`.
      listed: part -> (split of the list, name) of all samples on the public list, as `compared_names` makes them.
      compared_names: files of a table -> what is looked up on the public list.
      parts: names of the splits of the identities (``trial_1``), empty where there is one alone.
      folders_of: part -> its folders, where there are parts.
      part: the chosen one, "" where there are none.
      version: of the prepared records.
      release_notes: version -> what changed.
      beside: split -> the samples that are written -> files that go beside the records, by name; None: none.
    """

    name: str
    description: str
    citation: str
    folders: Folders
    protocols: tuple[Protocol, ...]
    published: Mapping[str, Known] = dataclasses.field(default_factory=dict)
    peculiar_protocols: tuple[Protocol, ...] = ()
    drawing: Drawing | None = None
    captions: TextForm | None = None
    composites: Mapping[str, Mapping[str, View]] = dataclasses.field(default_factory=dict)
    composite_key: str = ""
    listed: Callable[[str], Iterable[tuple[str, str]]] | None = None
    compared_names: Callable[[Sequence[str]], list[str]] = list
    parts: tuple[str, ...] = ()
    folders_of: Callable[[str], Folders] | None = None
    part: str = ""
    version: str = "1.0.0"
    release_notes: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"1.0.0": "First version."})
    beside: Callable[[Mapping[str, Sequence[Sample]]], Mapping[str, bytes]] | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.folders.splits)

    def known(self, split: str) -> Known:
        """What is known of a split."""
        return self.published.get(split, Known())

    @property
    def single(self) -> bool:
        """Whether a sample is one image of one modality, as in visible-infrared re-identification."""
        return isinstance(self.folders, SingleFolders)

    def views(self, composite: str = "") -> dict[str, View]:
        """Modality -> where its image is found, visible first.

        Args:
          composite: one of `composites`; "" for the usual one.

        Raises:
          UserError: there is no such way to cut the images.
        """
        if not self.composites:
            if isinstance(self.folders, SingleFolders):
                return dict.fromkeys(self.folders.modalities, View("image"))
            return {image: View(image) for image in self.folders.images}
        chosen = composite or next(iter(self.composites))
        if chosen not in self.composites:
            raise UserError(f"{self.composite_key} is {composite!r}; it must be one of {', '.join(self.composites)}")
        return dict(self.composites[chosen])

    def public_names(self) -> list[tuple[str, str]]:
        """(split of the list, name) of all samples on the public list, none where there is no list."""
        if self.listed is not None:
            return list(self.listed(self.part))
        return [(row["split"], row["file"]) for row in manifests.rows(self.name)]

    def of_part(self, part: str) -> Dataset:
        """One of the splits of its identities."""
        assert self.folders_of is not None
        return dataclasses.replace(self, part=part, folders=self.folders_of(part))

    def check(self, name: str) -> None:
        """Raises a `UserError` where something is not said that the program needs; `name`: as the user wrote it."""
        unknown = set(self.published) - set(self.splits)
        wrong = {
            f"calls itself {self.name!r}; its name must be that of its module": name.rpartition(".")[2] != self.name,
            "names no protocol, without which nobody can say what its scores mean": not self.protocols,
            f"publishes numbers of {', '.join(sorted(unknown))}, which it does not have": bool(unknown),
            "has parts but no folders_of": bool(self.parts) and self.folders_of is None,
            "has composites but no composite_key": len(self.composites) > 1 and not self.composite_key,
        }
        for complaint, holds in wrong.items():
            if holds:
                raise UserError(f"the data set {name} {complaint}; mend its DATASET")
