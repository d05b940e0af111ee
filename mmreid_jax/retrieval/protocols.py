"""Evaluation protocols: named, versioned, and printed with every score.

A protocol says which gallery samples a query is not compared with, how features are compared, and, in
visible-infrared ReID, which modality searches which and how galleries are drawn. It works on the tables alone; no image
is decoded.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Literal
from typing import Protocol as Interface

import numpy as np

from mmreid_jax.retrieval import distances
from mmreid_jax.retrieval.distances import CHUNK, Kind
from mmreid_jax.retrieval.galleries import Gallery, Pool

Direction = tuple[Literal["visible", "infrared"], Literal["visible", "infrared"]]

REMOVALS = {
    "same_identity_same_camera": "gallery samples of the query's identity and camera are removed",
    "same_identity_same_scene": "gallery samples of the query's identity and scene are removed; cameras are not used",
    "time_or_same_identity_same_camera": "gallery samples of the query's identity and camera, and those of any "
    "identity with the query's time id, are removed",
    "camera_2_for_camera_3": "queries of camera 3 are not compared with camera 2, which stands at the same place",
    "none": "no gallery sample is removed",
    "cameras_unknown": "cameras are not known, so no gallery sample is removed",
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
      counts: what a rank of the CMC counts: gallery images, or distinct identities in order of first appearance.
      direction: (modality of the queries, modality of the pool); None where both see the same modalities.
      gallery: how galleries are drawn from the pool in every trial; None compares with the whole pool once.
      swapped: the drawn gallery searches all queries: the roles are exchanged after the draw.
      usual: (distance, normalise) of the name, where another way to compare was asked for; see `compared_by`.
    """

    name: str
    version: int = 1
    removes: str = "same_identity_same_camera"
    distance: Kind = "squared_euclidean"
    normalise: bool = True
    max_rank: int = 50
    counts: Literal["images", "identities"] = "images"
    direction: Direction | None = None
    gallery: Gallery | None = None
    swapped: bool = False
    usual: tuple[Kind, bool] | None = None

    def compared_by(self, distance: Kind, normalise: bool) -> Protocol:
        """The same rule with another way to compare features, which the label then tells."""
        usual = self.usual or (self.distance, self.normalise)
        return dataclasses.replace(self, distance=distance, normalise=normalise, usual=usual)

    def galleries(self, pool: Pool) -> list[np.ndarray]:
        """The gallery of every trial as rows of the pool, int64 [G] each; one, the whole pool, where none is drawn.

        Raises:
          UserError: see `Gallery.positions`.
        """
        return self.gallery.positions(pool) if self.gallery else [np.arange(len(pool.identity))]

    def ignored(self, query: Table, gallery: Table, row: int) -> np.ndarray:
        """Bool [G]: the gallery samples that query `row` is not compared with."""
        return self.removes_pairs(query, gallery, np.array([row]), np.arange(len(gallery.identity)))

    def removes_pairs(self, query: Table, gallery: Table, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Bool [M]: whether queries `row` are not compared with gallery samples `column`, int [M] each or broadcast."""
        shape = np.broadcast_shapes(row.shape, column.shape)
        camera, other = query.camera[row], gallery.camera[column]
        if self.removes in ("none", "cameras_unknown"):
            return np.zeros(shape, bool)
        if self.removes == "camera_2_for_camera_3":
            return (camera == 2) & (other == 1)
        same = query.identity[row] == gallery.identity[column]
        if self.removes == "same_identity_same_camera":
            return same & (camera == other)
        same_scene = query.scene[row] == gallery.scene[column]
        if self.removes == "same_identity_same_scene":
            return same & same_scene
        return (same & (camera == other)) | same_scene

    def distances(self, query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        """Distances [Q, G] of features [Q, D] and [G, D]."""
        return distances.whole(self.distance, *self.compared(query, gallery))

    def blocks(
        self, query: np.ndarray, gallery: np.ndarray, chunk: int = CHUNK, reuse: bool = False
    ) -> Iterator[np.ndarray]:
        """The same, `chunk` queries at a time, for galleries whose distances do not fit: see `distances.blocks`."""
        return distances.blocks(self.distance, *self.compared(query, gallery), chunk, reuse)

    def compared(self, query: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The features as they are compared: of length one where the protocol says so."""
        if not self.normalise:
            return query, gallery
        return distances.l2_normalise(query), distances.l2_normalise(gallery)

    @property
    def label(self) -> str:
        """Name and version, and how features are compared where that is not the usual way."""
        usual_distance, usual_normalise = self.usual or (self.distance, self.normalise)
        kind = "" if self.distance == usual_distance else f", {self.distance.replace('_', ' ')} distance"
        length = "" if self.normalise == usual_normalise else ", features not normalised"
        return f"{self.name} v{self.version}{kind}{length}"

    def describe(self) -> str:
        """One line."""
        kind = {"squared_euclidean": "squared Euclidean"}.get(self.distance, self.distance) + " distance"
        length = " of features of length one" if self.normalise else ""
        parts = [f"{kind}{length}", REMOVALS[self.removes]]
        if self.direction:
            parts.insert(0, " searches ".join(self.direction))
        if self.counts == "identities":
            parts.append("ranks count distinct identities")
        if self.gallery:
            parts.append(self.gallery.describe())
        if self.swapped:
            parts.append("roles are then exchanged: the drawn images search all others")
        return f"protocol {self.name} v{self.version}: {'; '.join(parts)}"


JUNK_IDENTITY = -1
"""Identity of boxes that the Market protocol counts neither as right nor as wrong."""
MARKET = Protocol("rgbnt")
"""The rule of Market-1501, which most data sets of aligned modalities share."""
CROSS_MODAL = Protocol("", distance="cosine", max_rank=20)
"""What the protocols of visible-infrared data sets have in common."""
INFRARED_SEARCHES: Direction = ("infrared", "visible")
VISIBLE_SEARCHES: Direction = ("visible", "infrared")
GENERAL = {
    protocol.name: protocol
    for protocol in (
        MARKET,
        # HTT's first public version; an operator precedence removes every gallery sample of the query's time id.
        Protocol("htt_2024_07", removes="time_or_same_identity_same_camera"),
        Protocol("plain", removes="none"),
    )
}
"""Protocols that belong to no data set by name; those of data sets are in `mmreid_jax.datasets`."""


def missing_modality_cases(modalities: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """All ways in which some but not all modalities can be missing: (label such as ``M(RGB+NIR)``, absent ones).

    Six for three modalities, in the order of the tables of TOP-ReID and its successors.
    """
    cases = []
    for count in range(1, len(modalities)):
        for absent in itertools.combinations(modalities, count):
            cases.append((f"M({'+'.join(name.upper() for name in absent)})", absent))
    return cases
