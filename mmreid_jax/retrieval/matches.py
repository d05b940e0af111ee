"""Matches of queries on the disk."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np


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
