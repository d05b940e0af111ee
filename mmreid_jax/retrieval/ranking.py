"""Ranks of a few samples of every row of distances, without sorting the rows.

The rank of a sample is the number of samples that are closer, plus one. Distances are sorted into many narrow buckets,
which a row is counted into in one pass; exact comparisons are left to the few samples that share a bucket with one
whose rank is asked for. The work for a distance is the same however many ranks are asked for, and rounding cannot move
a sample over another one, because the bucket is a monotone function of the distance.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

# Indices of arrays [B, G], as numpy takes them: aligned or an open mesh.
Places = tuple[np.ndarray, np.ndarray]

# Buckets of a row: as many as it has samples, within these bounds; the counts of a few rows stay in the cache.
_FEWEST, _MOST = 1 << 8, 1 << 14
# The steepest slope from distances to buckets: takes any difference out of their range, but no zero.
_STEEP = 1e30


@dataclasses.dataclass(frozen=True)
class ColumnGroups:
    """The columns of a gallery by a label.

    Attributes:
      names: int [P], the distinct labels, ascending.
      order: int64 [G], columns by label, and as they come within one.
      starts: int64 [P + 1], where each label begins in `order`.
      of: int64 [G], the label of every column as an index of `names`.
    """

    names: np.ndarray
    order: np.ndarray
    starts: np.ndarray
    of: np.ndarray

    @classmethod
    def by(cls, label: np.ndarray) -> ColumnGroups:
        """Groups of equal labels, int [G]."""
        names, of, counts = np.unique(label, return_inverse=True, return_counts=True)
        return cls(names, np.argsort(of, kind="stable"), np.concatenate([[0], np.cumsum(counts)]), of)

    def columns(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The columns of the labels that each of B rows looks for.

        Args:
          wanted: int [B], labels that the gallery may lack.

        Returns:
          (owner int64 [M], column int64 [M], counts int64 [B]): row by row, columns ascending within a row, and the
          number of columns of each row.
        """
        place = np.minimum(np.searchsorted(self.names, wanted), len(self.names) - 1)
        first = self.starts[place]
        counts = np.where(self.names[place] == wanted, self.starts[place + 1] - first, 0)
        owner = np.repeat(np.arange(len(wanted)), counts)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        return owner, self.order[np.repeat(first, counts) + within], counts


class Scratch:
    """Memory for what is made of one block of distances after the other, which costs more to get than to fill."""

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
        """An array of anything; the one that had the name before is lost."""
        size = math.prod(shape)
        kept = self._arrays.get(name)
        if kept is None or kept.dtype != dtype or len(kept) < size:
            kept = self._arrays[name] = np.empty(size, dtype)
        return kept[:size].reshape(shape)


class Ranking:
    """Ranks of some entries of rows of distances.

    Attributes:
      owner: int64 [M], the row of each entry, ascending.
      column: int64 [M], its column; the entries of a row stand in the order of their ranks.
      closer: int64 [M], samples of the row that stand before it: closer ones, and equal ones in earlier columns.
    """

    def __init__(
        self,
        values: np.ndarray,
        owner: np.ndarray,
        column: np.ndarray,
        removed: Sequence[Places] = (),
        scratch: Scratch | None = None,
    ) -> None:
        """Ranks the entries.

        Args:
          values: float32 or float64 [B, G], without NaN; left as they are.
          owner: int64 [M], ascending: rows of the entries whose ranks are asked for.
          column: int64 [M], their columns, in any order.
          removed: places of samples that do not count; none of them is an entry.
          scratch: memory that the ranking uses as long as it is asked for anything.
        """
        scratch = scratch or Scratch()
        rows, size = values.shape
        count = min(max(_FEWEST, size), _MOST)
        width = count + 1
        starts = np.arange(rows)[:, None] * width
        lowest, slope = _range(values[owner, column], owner, rows, count)
        with np.errstate(over="ignore"):
            scaled = np.subtract(values, lowest[:, None], out=scratch.array("scaled", values.shape, values.dtype))
            scaled *= slope[:, None]
        np.clip(scaled, -1, count - 2, out=scaled)
        scaled += 1
        buckets = scratch.array("buckets", values.shape, np.int64)
        np.copyto(buckets, scaled, casting="unsafe")
        buckets += starts
        for row, place in removed:
            # Behind the last bucket of the row, where nothing is asked for.
            buckets[row, place] = starts[row, 0] + count
        self._values, self._buckets = values, buckets
        self.owner = owner
        self.column, self.closer = self._count(column, rows * width)

    def _count(self, column: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """`column` and `closer` of entries of any order; `length`: number of buckets of all rows."""
        size = self._values.shape[1]
        buckets = self._buckets.ravel()
        asked = self.owner * size + column
        shared = np.zeros(length, bool)
        shared[buckets[asked]] = True
        candidates = np.flatnonzero(shared[buckets])
        counts = np.bincount(buckets, minlength=length)
        counts[buckets[asked]] = 0
        is_asked = np.zeros(len(buckets), bool)
        is_asked[asked] = True
        place, column = self._ordered(candidates, is_asked[candidates])
        asked = self.owner * size + column
        # Over all rows up to this one: what lies in lower buckets, and candidates that come first.
        return column, np.cumsum(counts, out=counts)[buckets[asked]] + place - self.owner * size

    def _ordered(self, candidates: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of those candidates that are `asked` for: place among all by row, distance and column, and column.

        Args:
          candidates: int64 [C], flat positions, ascending.
          asked: bool [C], M of them.

        Returns:
          (int64 [M], int64 [M]), places ascending.
        """
        height, size = self._values.shape
        rows, columns = np.divmod(candidates, size)
        distances = self._values.ravel()[candidates]
        if distances.dtype == np.float32 and height.bit_length() + size.bit_length() < 32:
            keys = np.sort(_keys(rows, distances, 2 * columns + asked, size.bit_length() + 1))
            place = np.flatnonzero(keys & np.uint64(1))
            return place, (keys[place].astype(np.int64) & ((2 << size.bit_length()) - 1)) >> 1
        order = np.lexsort((distances, rows))
        place = np.flatnonzero(asked[order])
        return place, columns[order[place]]

    def labels_before(self, entries: np.ndarray, labels: np.ndarray, number: int) -> np.ndarray:
        """How many distinct labels stand before some entries, at most one of a row.

        Args:
          entries: int64 [E], ascending: which of the M.
          labels: int64 [G], of the columns, from 0.
          number: of labels.

        Returns:
          int64 [E].
        """
        row, column = self.owner[entries], self.column[entries]
        wanted, bound = self._values[row, column], self._buckets[row, column]
        every = len(row) == len(self._buckets)
        places = np.flatnonzero((self._buckets if every else self._buckets[row]) <= bound[:, None])
        entry, place = np.divmod(places, self._values.shape[1])
        distances = self._values[row[entry], place]
        first = (distances < wanted[entry]) | ((distances == wanted[entry]) & (place < column[entry]))
        seen = np.zeros((len(entries), number), bool)
        seen[entry[first], labels[place[first]]] = True
        return np.count_nonzero(seen, axis=1)


def _range(wanted: np.ndarray, owner: np.ndarray, rows: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(lowest, slope) [rows] each: of the function that spreads the finite distances asked for over `count` buckets."""
    lowest, highest = np.zeros((2, rows), wanted.dtype)
    if len(owner):
        numbers = np.bincount(owner, minlength=rows)
        some = numbers > 0
        starts = (np.cumsum(numbers) - numbers)[some]
        finite = np.isfinite(wanted)
        lowest[some] = np.minimum.reduceat(np.where(finite, wanted, np.inf), starts)
        highest[some] = np.maximum.reduceat(np.where(finite, wanted, -np.inf), starts)
        # Rows of infinite ones alone.
        infinite = lowest > highest
        lowest[infinite] = highest[infinite] = 0
    with np.errstate(divide="ignore", over="ignore"):
        slope = np.clip((count - 3) / (highest - lowest), 1 / _STEEP, _STEEP)
    return lowest, slope.astype(wanted.dtype)


def _keys(rows: np.ndarray, distances: np.ndarray, last: np.ndarray, bits: int) -> np.ndarray:
    """uint64, in the order of row, float32 distance and `last`, an integer of that many bits."""
    # Of a float's bits the sign alone is not in the order of numbers; adding zero makes -0 the same as 0.
    pattern = (distances + np.float32(0)).view(np.uint32)
    pattern = pattern ^ np.where(pattern >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    high = (rows.astype(np.uint64) << np.uint64(32)) | pattern
    return (high << np.uint64(bits)) | last.astype(np.uint64)
