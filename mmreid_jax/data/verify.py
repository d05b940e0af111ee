"""Compares a data set with what is publicly known of it: numbers of samples and identities, and file names.

The names of RGBNT201, RGBNT100, MSVR310, RegDB and LLCM are in ``mmreid_jax/data/manifests``, and how many images of
every identity each camera of SYSU-MM01 took. Numbers that no public list confirms
(RGBN300, the query identities of MSVR310, Market1501-MM) are shown beside those found, never asserted.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import gzip
import os
import pathlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources

import numpy as np

from mmreid_jax.data import catalogue
from mmreid_jax.data.records import Records
from mmreid_jax.errors import UserError

_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Known:
    """What is known of a split.

    Attributes:
      samples: number of samples that a complete copy has, None if unknown.
      identities: number of identities of a complete copy, None if unknown.
      list_split: split of the manifest that holds the names, None if there is no list.
      part_of_list: True when the names are some of that list, not all.
      unverified: numbers from the literature that no list confirms, for display: (samples, identities), either None.
    """

    samples: int | None = None
    identities: int | None = None
    list_split: str | None = None
    part_of_list: bool = False
    unverified: tuple[int | None, int | None] = (None, None)


_REGDB = {
    "train": Known(4120, 206, "train"),
    "query": Known(2060, 206, "query"),
    "gallery": Known(2060, 206, "gallery"),
}

KNOWN: Mapping[str, Mapping[str, Known]] = {
    "rgbnt201": {
        "train": Known(3951, 171, "train"),
        "query": Known(836, 30, "test"),
        "gallery": Known(836, 30, "test"),
    },
    "rgbnt100": {
        "train": Known(8675, 50, "train"),
        "query": Known(1715, 50, "test", part_of_list=True),
        "gallery": Known(8575, 50, "test"),
    },
    "msvr310": {
        "train": Known(1032, 155, "train"),
        "query": Known(591, None, "test", part_of_list=True, unverified=(None, 52)),
        "gallery": Known(1055, 155, "test"),
    },
    "rgbn300": {
        "train": Known(unverified=(25200, 150)),
        "query": Known(unverified=(4985, 150)),
        "gallery": Known(unverified=(24925, 150)),
    },
    "market1501_mm": {
        "train": Known(unverified=(None, 751)),
        "query": Known(unverified=(None, 750)),
        "gallery": Known(unverified=(None, 751)),  # 750 persons, and the distractors
    },
    "sysu_mm01": {
        "train": Known(34167, 395, "train"),
        "query": Known(3803, 96, "query"),
        "gallery": Known(6775, 96, "gallery"),
    },
    "llcm": {
        "train": Known(30921, 713, "train"),
        "query": Known(7166, 351, "query"),
        "gallery": Known(8680, 351, "gallery"),
    },
    "regdb": _REGDB,
    **dict.fromkeys(catalogue.configs("regdb"), _REGDB),
}
"""Data set -> split -> what is known of it. Sources: the public file lists behind the manifests, and the papers."""


@dataclasses.dataclass(frozen=True)
class SplitReport:
    """A split beside what is known of it.

    Attributes:
      split: its name.
      samples: number of samples found.
      identities: number of identities found.
      known: what is known.
      missing: names on the public list that were not found.
      unknown: names found that are not on the public list.
    """

    split: str
    samples: int
    identities: int
    known: Known
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def incomplete(self) -> bool:
        """Whether samples are missing."""
        return bool(self.missing) or (self.known.samples is not None and self.samples < self.known.samples)

    @property
    def problems(self) -> list[str]:
        """What differs from a complete copy, one sentence part each; empty if nothing does."""
        known, found = self.known, []
        if self.missing:
            found.append(f"{self.split} lacks {len(self.missing)} of {known.samples} samples ({_few(self.missing)})")
        elif self.incomplete:
            found.append(f"{self.split} has only {self.samples} of {known.samples} samples")
        if self.unknown:
            found.append(
                f"{self.split} has {len(self.unknown)} samples that are not public ones ({_few(self.unknown)})"
            )
        elif known.samples is not None and self.samples > known.samples:
            found.append(f"{self.split} has {self.samples} samples instead of {known.samples}")
        if not found and known.identities is not None and self.identities != known.identities:
            found.append(f"{self.split} has {self.identities} identities instead of {known.identities}")
        return found

    @property
    def unconfirmed(self) -> list[str]:
        """Found numbers beside numbers that no public list confirms."""
        pairs = zip((self.samples, self.identities), self.known.unverified, ("samples", "identities"), strict=True)
        return [
            f"{self.split} has {found} {what}, the literature says {number}"
            for found, number, what in pairs
            if number is not None
        ]


@dataclasses.dataclass(frozen=True)
class Report:
    """How a data set compares with the public one.

    Attributes:
      dataset: its name.
      drawn: True for drawn data, which are not compared.
      splits: one report a split.
    """

    dataset: str
    drawn: bool
    splits: tuple[SplitReport, ...]

    @property
    def verdict(self) -> str:
        """``complete``, ``incomplete``, ``different`` (not the public samples), ``not verified`` or ``drawn``."""
        if self.drawn:
            return "drawn"
        if any(split.incomplete for split in self.splits):
            return "incomplete"
        if any(split.problems for split in self.splits):
            return "different"
        return "complete" if any(split.known.samples is not None for split in self.splits) else "not verified"

    def __str__(self) -> str:
        """The verdict and its reasons in one line."""
        if self.drawn:
            return f"{self.dataset}: drawn data, not compared with the public data set"
        problems = [problem for split in self.splits for problem in split.problems]
        unconfirmed = [remark for split in self.splits for remark in split.unconfirmed]
        line = f"{self.dataset}: {self.verdict}"
        if problems:
            line += ": " + "; ".join(problems)
        if unconfirmed:
            line += (": " if self.verdict == "not verified" else "; not verified: ") + "; ".join(unconfirmed)
        return line


def check(dataset: str, source: str | os.PathLike[str] | Mapping[str, Records]) -> Report:
    """Compares a data set with the public counts and names.

    Args:
      dataset: one of `catalogue.datasets` or `catalogue.configs`.
      source: the data set's folder (or its parent), or split -> records of it; absent splits are not checked.

    Raises:
      UserError: unknown data set, or the folder is not readable as this data set.
    """
    if isinstance(source, Mapping):
        drawn = any(getattr(records.source, "drawn", False) for records in source.values())
        tables = {split: (records.file.tolist(), records.identity) for split, records in source.items()}
    else:
        drawn, tables = _read_folder(dataset, source)
    if unknown := [split for split in tables if split not in KNOWN.get(dataset, {})]:
        raise UserError(f"nothing is known of the splits {', '.join(unknown)} of {dataset}")
    reports = [_compare(dataset, split, names, identity) for split, (names, identity) in tables.items()]
    return Report(dataset, drawn, tuple(reports))


@functools.cache
def public_names(dataset: str) -> Mapping[str, frozenset[str]]:
    """Split (``train``, ``test``; of visible-infrared data sets ``train``, ``query``, ``gallery``) -> public names.

    Names are those that `found_names` makes of the file names of a table; empty if there is no public list.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for split, name in _LISTED.get(dataset.partition("/")[0], _listed)(dataset):
        names[split].add(name)
    return {split: frozenset(files) for split, files in names.items()}


def found_names(dataset: str, files: Sequence[str]) -> list[str]:
    """What to compare with `public_names`.

    These are the files as they are, but of LLCM the base names (test images lie in two places), and of SYSU-MM01, of
    which the numbers of images are public and their names are not, the position of a file among those of its folder.
    """
    if dataset == "llcm":
        return [pathlib.PurePosixPath(file).name for file in files]
    if dataset != "sysu_mm01":
        return list(files)
    seen: Counter[str] = Counter()
    names = []
    for folder in (pathlib.PurePosixPath(file).parent.as_posix() for file in files):
        seen[folder] += 1
        names.append(f"{folder} image {seen[folder]}")
    return names


def _manifest(name: str) -> list[dict[str, str]]:
    """The rows of a public list, none if there is no such list."""
    table = resources.files("mmreid_jax.data.manifests") / f"{name}.csv.gz"
    if not table.is_file():
        return []
    return list(csv.DictReader(gzip.decompress(table.read_bytes()).decode("utf-8").splitlines()))


def _listed(dataset: str) -> Iterator[tuple[str, str]]:
    for row in _manifest(dataset):
        yield row["split"], row["file"]


def _listed_sysu(dataset: str) -> Iterator[tuple[str, str]]:
    trained = {row["original_id"] for row in _manifest("sysu_train_counts")}
    tested = {row["id"] for row in _manifest("sysu_official_gallery_first10")}
    for row in _manifest("sysu_counts"):
        if row["id"] in trained or row["id"] in tested:
            split = "train" if row["id"] in trained else "query" if row["cam"] in ("3", "6") else "gallery"
            for number in range(int(row["n_images_in_official_permutation"])):
                yield split, f"cam{row['cam']}/{int(row['id']):04d} image {number + 1}"


def _listed_regdb(dataset: str) -> Iterator[tuple[str, str]]:
    trial = catalogue.builder_config(dataset).removeprefix("trial_")
    part = {row["id"]: row["split"] for row in _manifest("regdb_splits") if row["trial"] == trial}
    for row in _manifest("regdb_images"):
        folder, identity, _ = row["file"].split("/")
        split = {"Visible": "query", "Thermal": "gallery"}[folder] if part[identity] == "test" else "train"
        yield split, row["file"]


def _listed_llcm(dataset: str) -> Iterator[tuple[str, str]]:
    split = {"train_vis": "train", "train_nir": "train", "test_nir": "query", "test_vis": "gallery"}
    for row in _manifest("llcm"):
        yield split[row["list"]], pathlib.PurePosixPath(row["file"]).name


_LISTED = {"sysu_mm01": _listed_sysu, "regdb": _listed_regdb, "llcm": _listed_llcm}


def _read_folder(dataset: str, folder: str | os.PathLike[str]) -> tuple[bool, dict[str, tuple[list[str], np.ndarray]]]:
    """Whether the data are drawn, and split -> (names, identities), without junk boxes as in `catalogue`."""
    from tfds_builders import common

    layout = catalogue.layout(dataset)
    root = common.find_root(layout, pathlib.Path(folder))
    tables = {}
    for split in layout.splits:
        samples = common.list_samples(layout, root, split)
        kept = [sample for sample in samples if sample.labels.identity != catalogue.JUNK_IDENTITY]
        tables[split] = ([sample.file for sample in kept], np.array([sample.labels.identity for sample in kept]))
    return common.read_drawn(layout, root) is not None, tables


def _compare(dataset: str, split: str, names: Sequence[str], identity: np.ndarray) -> SplitReport:
    known = KNOWN[dataset][split]
    missing: list[str] = []
    unknown: list[str] = []
    if known.list_split is not None:
        public, found = public_names(dataset)[known.list_split], found_names(dataset, names)
        unknown = sorted(set(found) - public)
        missing = [] if known.part_of_list else sorted(public.difference(found))
    return SplitReport(split, len(names), len(np.unique(identity)), known, tuple(missing), tuple(unknown))


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
