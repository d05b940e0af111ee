"""Matches of queries, in memory and on the disk."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np


@dataclasses.dataclass(frozen=True)
class Matches:
    """What a search found.

    Attributes:
      order: int64 [Q, K], gallery rows, best first; K is smaller than asked for where the gallery is.
      distances: float32 [Q, K].
      query: str [Q], names of the queries: of their files, else their numbers.
      gallery: str [G], names of the gallery images.
    """

    order: np.ndarray
    distances: np.ndarray
    query: np.ndarray
    gallery: np.ndarray

    def files(self) -> list[list[str]]:
        """Names of the matches of every query, best first."""
        return self.gallery[self.order].tolist()

    def write(self, path: str | Path) -> None:
        """Writes all matches as a CSV file: query, rank, match, distance."""
        write_table(Path(path), self.query.tolist(), self.gallery, self.order, self.distances)


def write_table(
    path: Path, queries: Sequence[str], files: np.ndarray, order: np.ndarray, distances: np.ndarray
) -> None:
    """A CSV file of all matches: query, rank, match, distance."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("query", "rank", "match", "distance"))
        for name, row, values in zip(queries, order, distances, strict=True):
            for rank, (index, value) in enumerate(zip(row, values, strict=True), start=1):
                writer.writerow((name, rank, files[index], f"{value:.6f}"))
