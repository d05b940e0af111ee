"""Evaluation protocols: named, versioned, and printed with every score.

A protocol says which gallery samples a query is not compared with, and how features are compared. It works on the
tables alone; no image is decoded.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol as Interface

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import distances
from mmreid_jax.retrieval.distances import CHUNK, Kind

REMOVALS = {
    "same_identity_same_camera": "gallery samples of the query's identity and camera are removed",
    "same_identity_same_scene": "gallery samples of the query's identity and scene are removed; cameras are not used",
    "time_or_same_identity_same_camera": "gallery samples of the query's identity and camera, and those of any "
    "identity with the query's time id, are removed",
    "none": "no gallery sample is removed",
}


class Table(Interface):
    """What a protocol reads of query or gallery (`mmreid_jax.data.records.Records` has it)."""

    @property
    def identity(self) -> np.ndarray:
        """Int [N]."""

    @property
    def camera(self) -> np.ndarray:
        """Int [N]."""

    @property
    def scene(self) -> np.ndarray:
        """Int [N]."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How queries and gallery are compared.

    Attributes:
      name: printed with every score.
      version: raised when the meaning of the name changes.
      removes: key of `REMOVALS`.
      distance: key of `distances.KINDS`.
      normalise: compare features of length one.
      max_rank: length of the CMC curve.
    """

    name: str
    version: int = 1
    removes: str = "same_identity_same_camera"
    distance: Kind = "squared_euclidean"
    normalise: bool = True
    max_rank: int = 50

    def ignored(self, query: Table, gallery: Table, row: int) -> np.ndarray:
        """Bool [G]: the gallery samples that query `row` is not compared with."""
        mask = np.zeros(len(gallery.identity), bool)
        mask[self.removed(query, gallery, row, np.flatnonzero(gallery.identity == query.identity[row]))] = True
        return mask

    def removed(self, query: Table, gallery: Table, row: int, same: np.ndarray) -> np.ndarray:
        """The same as positions, given those of the query's identity, `same`: what a loop over queries can afford."""
        if self.removes == "same_identity_same_camera":
            return same[gallery.camera[same] == query.camera[row]]
        if self.removes == "same_identity_same_scene":
            return same[gallery.scene[same] == query.scene[row]]
        if self.removes == "time_or_same_identity_same_camera":
            same_camera = same[gallery.camera[same] == query.camera[row]]
            return np.union1d(same_camera, np.flatnonzero(gallery.scene == query.scene[row]))
        return same[:0]

    def distances(self, query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        """Distances [Q, G] of features [Q, D] and [G, D]."""
        return distances.whole(self.distance, *self.compared(query, gallery))

    def blocks(self, query: np.ndarray, gallery: np.ndarray, chunk: int = CHUNK) -> Iterator[np.ndarray]:
        """The same, `chunk` queries at a time, for galleries whose distances do not fit: [up to chunk, G] each."""
        return distances.blocks(self.distance, *self.compared(query, gallery), chunk)

    def compared(self, query: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The features as they are compared: of length one where the protocol says so."""
        if not self.normalise:
            return query, gallery
        return distances.l2_normalise(query), distances.l2_normalise(gallery)

    @property
    def label(self) -> str:
        """Name and version, and how features are compared where that is not the usual way."""
        usual = Protocol(self.name)
        kind = "" if self.distance == usual.distance else f", {self.distance.replace('_', ' ')} distance"
        length = "" if self.normalise == usual.normalise else ", features not normalised"
        return f"{self.name} v{self.version}{kind}{length}"

    def describe(self) -> str:
        """One line."""
        kind = {"squared_euclidean": "squared Euclidean"}.get(self.distance, self.distance) + " distance"
        length = " of features of length one" if self.normalise else ""
        return f"protocol {self.name} v{self.version}: {kind}{length}; {REMOVALS[self.removes]}"


PROTOCOLS = {
    # RGBNT201, RGBNT100, RGBN300, Market1501-MM: the Market-1501 rule.
    "rgbnt": Protocol("rgbnt"),
    "msvr310": Protocol("msvr310", removes="same_identity_same_scene"),
    # HTT's first public version; an operator precedence removes every gallery sample of the query's time id.
    "htt_2024_07": Protocol("htt_2024_07", removes="time_or_same_identity_same_camera"),
    "plain": Protocol("plain", removes="none"),
}
_OF_DATASET = {"msvr310": "msvr310"}


def by_name(name: str) -> Protocol:
    """A protocol.

    Raises:
      UserError: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise UserError(f"unknown protocol {name!r}; choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def for_dataset(dataset: str) -> Protocol:
    """The protocol that publications use on a data set."""
    return PROTOCOLS[_OF_DATASET.get(dataset, "rgbnt")]


def missing_modality_cases(modalities: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """All ways in which some but not all modalities can be missing: (label such as ``M(RGB+NIR)``, absent ones).

    Six for three modalities, in the order of the tables of TOP-ReID and its successors.
    """
    cases = []
    for count in range(1, len(modalities)):
        for absent in itertools.combinations(modalities, count):
            cases.append((f"M({'+'.join(name.upper() for name in absent)})", absent))
    return cases
