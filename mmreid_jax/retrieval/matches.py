"""Matches of queries: in memory, which of them are the query itself, and the table on the disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmreid_jax import owned
from mmreid_jax.paths import whole

_HEADER = "query,rank,match,distance\r\n"
_ROUNDING = 1e-5
"""Share of the largest number by which features of the same image may differ."""
_SEPARATING = frozenset(',;|"\t\r\n')
# What a spreadsheet takes for the beginning of a formula, in letters of two widths.
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


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
        """Writes all matches as a CSV file: query, rank, match, distance.

        Raises:
          UserError: there is another file than such a table.
        """
        check_table(Path(path))
        write_table(Path(path), self.query.tolist(), self.gallery, self.order, self.distances)


def check_table(path: Path) -> None:
    """Says whether matches may be written to a path, before there are any.

    Raises:
      UserError: there is a file that `write_table` did not write.
    """
    owned.check_file(path, _is_table, "table of matches")


def _is_table(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_HEADER)) == _HEADER.encode()


def write_table(
    path: Path, queries: Sequence[str], files: np.ndarray, order: np.ndarray, distances: np.ndarray
) -> None:
    """A CSV file of all matches: query, rank, match, distance; complete or not at all.

    Names are written so that no spreadsheet takes one for a formula: ``=x.png`` becomes ``./=x.png``, which names the
    same file, and a name with a separator of any kind is quoted, so that none begins another cell. Bytes of a name that
    are not UTF-8 are written as ``\\udcff``. A distance is at least 0, whatever rounding has made of it.

    Args:
      path: of the file.
      queries: names, [Q].
      files: names of the gallery, [G].
      order: int [Q, K], gallery rows, best first; -1 where a query has fewer matches.
      distances: [Q, K], their distances.
    """
    cells = [_cell(str(name)) for name in queries]
    with whole(path) as part, part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        file.write(_HEADER)
        for name, row, values in zip(cells, order, distances, strict=True):
            for rank, (index, value) in enumerate(zip(row, values, strict=True), start=1):
                if index >= 0:
                    file.write(f"{name},{rank},{_cell(str(files[index]))},{max(value, 0):z.6f}\r\n")


def without_themselves(
    query: tuple[np.ndarray, np.ndarray],
    gallery: tuple[np.ndarray, np.ndarray],
    order: np.ndarray,
    distances: np.ndarray,
    top: int,
    same: Mapping[int, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """The matches without the queries themselves, which may be in the gallery as well.

    Args:
      query: names [Q] and features [Q, D].
      gallery: names [G] and features [G, D].
      order: int [Q, K], gallery rows, best first; K exceeds `top` by as many as a query may lose (without `same` one).
      distances: [Q, K], their distances.
      top: matches to keep for each query.
      same: query -> the gallery rows that are the query; None: those of the same name with the same features, but for
        rounding.

    Returns:
      (order [Q, K'], distances [Q, K'], number of queries that are in the gallery), K' up to `top`; -1 and infinite at
      the end of a row that has fewer.
    """
    kept = np.full((len(order), min(top, order.shape[1])), -1, np.int64)
    kept_distances = np.full(kept.shape, np.inf, distances.dtype)
    in_gallery = 0
    for row, (indices, values) in enumerate(zip(order, distances, strict=True)):
        if same is not None:
            itself = np.isin(indices, same.get(row, []))
        else:
            itself = gallery[0][indices] == query[0][row]
            ours = np.asarray(query[1][row])
            for place in np.flatnonzero(itself):
                theirs = np.asarray(gallery[1][indices[place]])
                itself[place] = np.abs(theirs - ours).max() <= _ROUNDING * np.abs(ours).max()
        in_gallery += bool(itself.any())
        others = np.flatnonzero(~itself)[: kept.shape[1]]
        kept[row, : len(others)], kept_distances[row, : len(others)] = indices[others], values[others]
    return kept, kept_distances, in_gallery


def harmless(name: str) -> str:
    """A file's name that no spreadsheet takes for a formula: ``=x.png`` as ``./=x.png``, which is the same file."""
    return f"./{name}" if name.startswith(_FORMULA) else name


def _cell(name: str) -> str:
    """A name as a cell of a table, which a spreadsheet must not compute, whatever separates its cells."""
    name = harmless(name)
    return '"' + name.replace('"', '""') + '"' if set(name) & _SEPARATING else name
