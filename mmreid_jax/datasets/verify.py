"""Compares a data set with what is publicly known of it: numbers of samples and identities, and file names.

What is known says the data set itself (`Dataset.published`, `Dataset.public_names`). Numbers that no public list
confirms are shown beside those found, never asserted.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

import mmreid_jax.datasets as datasets
from mmreid_jax.data.records import Records
from mmreid_jax.datasets import disk
from mmreid_jax.datasets.base import Dataset, Known
from mmreid_jax.errors import UserError
from mmreid_jax.retrieval.protocols import JUNK_IDENTITY

_SHOWN = 5


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
        known, differences = self.known, []
        if self.missing:
            differences.append(
                f"{self.split} lacks {len(self.missing)} of {known.samples} samples ({_few(self.missing)})"
            )
        elif self.incomplete:
            differences.append(f"{self.split} has only {self.samples} of {known.samples} samples")
        if self.unknown:
            differences.append(
                f"{self.split} has {len(self.unknown)} samples that are not public ones ({_few(self.unknown)})"
            )
        elif known.samples is not None and self.samples > known.samples:
            differences.append(f"{self.split} has {self.samples} samples instead of {known.samples}")
        if not differences and known.identities is not None and self.identities != known.identities:
            differences.append(f"{self.split} has {self.identities} identities instead of {known.identities}")
        return differences

    @property
    def unconfirmed(self) -> list[str]:
        """Found numbers beside numbers that no public list confirms."""
        pairs = zip((self.samples, self.identities), self.known.unverified, ("samples", "identities"), strict=True)
        return [
            f"{self.split} has {count} {what}, the literature says {number}"
            for count, number, what in pairs
            if number is not None
        ]


@dataclasses.dataclass(frozen=True)
class DatasetReport:
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


Tables = Mapping[str, tuple[Sequence[str], np.ndarray]]
"""Split -> (file, identity) of its samples, without junk boxes."""


def check(dataset: str | Dataset, source: str | os.PathLike[str] | Mapping[str, Records]) -> DatasetReport:
    """Compares a data set with the public counts and names.

    Args:
      dataset: a name of `mmreid_jax.datasets.get`, or what that gives.
      source: the data set's folder (or its parent), or split -> records of it; absent splits are not checked.

    Raises:
      UserError: unknown data set or split, or the folder is not readable as this data set.
    """
    if isinstance(source, Mapping):
        drawn = any(getattr(records.source, "drawn", False) for records in source.values())
        tables = {split: (records.file.tolist(), records.identity) for split, records in source.items()}
        return compare(dataset, tables, drawn)
    folders = _described(dataset).folders
    root = disk.find_root(folders, pathlib.Path(source))
    samples = {split: disk.list_samples(folders, root, split) for split in folders.splits}
    return compare(dataset, tables_of(samples), disk.read_drawn(folders, root) is not None)


def tables_of(samples: Mapping[str, Sequence[disk.Sample]]) -> Tables:
    """What `compare` wants of listed samples, split by split; junk boxes are left out as in the records."""
    kept = {name: [s for s in listed if s.labels.identity != JUNK_IDENTITY] for name, listed in samples.items()}
    return {
        name: ([sample.file for sample in listed], np.array([sample.labels.identity for sample in listed], np.int64))
        for name, listed in kept.items()
    }


def compare(dataset: str | Dataset, tables: Tables, drawn: bool) -> DatasetReport:
    """Compares the samples of a data set with what is known of it; those of a drawn one are only counted.

    Args:
      dataset: a name of `mmreid_jax.datasets.get`, or what that gives.
      tables: of its splits.
      drawn: whether they were drawn.

    Raises:
      UserError: unknown data set or split, or the data set names a public list that is not there.
    """
    described = _described(dataset)
    name = described.folders.name if isinstance(dataset, Dataset) else dataset
    if unknown := [split for split in tables if split not in described.splits]:
        raise UserError(f"{name} has no split {', '.join(unknown)}; it has {', '.join(described.splits)}")
    reports = [_compare(name, described, split, names, identity) for split, (names, identity) in tables.items()]
    return DatasetReport(name, drawn, tuple(reports))


def _described(dataset: str | Dataset) -> Dataset:
    return dataset if isinstance(dataset, Dataset) else datasets.get(dataset)


@functools.cache
def public_names(dataset: str) -> Mapping[str, frozenset[str]]:
    """Split of the public list -> its names, as `Dataset.compared_names` makes them; empty if there is no list."""
    names: dict[str, set[str]] = defaultdict(set)
    for split, name in datasets.get(dataset).public_names():
        names[split].add(name)
    return {split: frozenset(files) for split, files in names.items()}


def _compare(dataset: str, described: Dataset, split: str, names: Sequence[str], identity: np.ndarray) -> SplitReport:
    known = described.known(split)
    missing: list[str] = []
    unknown: list[str] = []
    if known.list_split is not None:
        if known.list_split not in public_names(dataset):
            raise UserError(f"{dataset} names a public list of {known.list_split}, but there is none; mend its DATASET")
        public, present = public_names(dataset)[known.list_split], described.compared_names(names)
        unknown = sorted(set(present) - public)
        missing = [] if known.part_of_list else sorted(public.difference(present))
    return SplitReport(split, len(names), len(np.unique(identity)), known, tuple(missing), tuple(unknown))


def _few(names: Sequence[str]) -> str:
    listed = ", ".join(names[:_SHOWN])
    return listed if len(names) <= _SHOWN else f"{listed} and {len(names) - _SHOWN} more"
