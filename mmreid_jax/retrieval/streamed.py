"""The nearest gallery rows of every query, in a gallery that streams by: exact, in memory bounded by a chunk of it.

The gallery may be a memory-mapped file larger than memory. Its rows are dealt out to the processes of a
``jax.distributed`` job, each of which reads its own slice alone, and within a process chunk by chunk to its devices. A
device keeps the best it has seen for each query; what all of them kept is merged at the end.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.paths import whole
from mmreid_jax.retrieval.distances import (
    Kind,
    check_features,
    check_finite,
    not_finite,
    pairwise,
    squared_lengths,
)

CHUNK = 1 << 26
"""Bytes of gallery features that a device holds at a time."""
# Rows and queries whose distances a device looks at together, and rows of which the least distance is taken first.
_TILE, _QUERIES, _GROUP = 4096, 512, 32

Best = tuple[jax.Array, jax.Array]
Names = Sequence[object] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a search leaves off, so that it can go on after an interruption.

    Attributes:
      path: file that is kept while the search runs and deleted by whoever has stored the result (`done`); other
        processes of a job than the first add their number to its name.
      every: chunks between two writes.
    """

    path: Path
    every: int = 16

    @property
    def file(self) -> Path:
        """The file of this process."""
        index = jax.process_index()
        return self.path.with_name(f"{self.path.name}.{index}") if index else self.path

    def done(self) -> None:
        """Deletes the file."""
        self.file.unlink(missing_ok=True)


def top_k(
    query: np.ndarray,
    gallery: np.ndarray,
    count: int,
    *,
    kind: Kind = "squared_euclidean",
    chunk: int = CHUNK,
    progress: Progress | None = None,
    names: tuple[Names, Names] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest gallery rows of every query, best first, equally distant ones in the order of the gallery.

    In a job of several processes all must call it with the same arguments; all get the result.

    Args:
      query: features [Q, D], in memory.
      gallery: features [G, D]; an array, or a memory map, of which no more than a few chunks are in memory.
      count: rows for each query.
      kind: of distance.
      chunk: bytes of the gallery that a device holds at a time.
      progress: of a search that may be interrupted; one that was goes on where it stopped.
      names: of the query and the gallery images, for messages; None: their numbers.

    Returns:
      (int64 [Q, K] gallery rows, float32 [Q, K] distances), K = min(count, G); float64 under 64-bit types. Distances
      are at least 0, which rounding takes away from those of equal features.

    Raises:
      UserError: the features are not [Q, D] and [G, D], some are not finite, or `progress` is that of another search.
    """
    check_features(kind, query, gallery)
    kept = min(count, len(gallery))
    if not len(query) or not kept:
        return np.zeros((len(query), kept), np.int64), np.zeros((len(query), kept), np.float32)
    query_names, gallery_names = names or (range(len(query)), range(len(gallery)))
    check_finite(query, query_names, "query")
    processes, index = jax.process_count(), jax.process_index()
    first, last = (len(gallery) * part // processes for part in (index, index + 1))
    values, rows = _Search(query, gallery, kept, kind, chunk, progress, gallery_names).run(first, last)
    if processes > 1:
        from jax.experimental import multihost_utils

        # One part from each, however many devices it has.
        rows, values = merged(values, rows, kept)
        values, rows = multihost_utils.process_allgather((values, rows.astype(np.int32)))
    rows, values = merged(values, rows, kept)
    return rows, np.maximum(values, 0)


def merged(distances: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The best of several parts of a gallery.

    Args:
      distances: [..., Q, K], infinite where a part has fewer.
      rows: int [..., Q, K], gallery rows, no two alike in a query, negative where a part has fewer.
      count: how many to keep.

    Returns:
      (int64 [Q, count] rows, [Q, count] distances), by distance, then row; negative rows and infinite distances last.
    """
    distances, rows = (
        np.moveaxis(part.reshape(-1, *part.shape[-2:]), 0, 1).reshape(part.shape[-2], -1) for part in (distances, rows)
    )
    rows = rows.astype(np.int64)
    last = np.where(rows < 0, np.iinfo(np.int64).max, rows)
    order = np.lexsort((last, distances), axis=1)[:, :count]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(distances, order, axis=1)


class _Search:
    """The part of a search that this process does."""

    def __init__(
        self,
        query: np.ndarray,
        gallery: np.ndarray,
        count: int,
        kind: Kind,
        chunk: int,
        progress: Progress | None,
        names: Names,
    ) -> None:
        self._query, self._gallery, self._count, self._kind = query, gallery, count, kind
        self._progress, self._names = progress, names
        self._devices = jax.local_devices()
        dtype = jax.dtypes.canonicalize_dtype(np.promote_types(gallery.dtype, np.float32))
        rows = max(1, chunk // (gallery.shape[1] * dtype.itemsize))
        # Whole tiles, one program for all chunks, and none larger than what there is.
        self._tile = min(_TILE, _above(rows, _GROUP), _above(math.ceil(len(gallery) / len(self._devices)), _GROUP))
        self._rows = max(1, rows // self._tile) * self._tile
        self._dtype = dtype

    def run(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """([devices, Q, K] distances, int32 [devices, Q, K] rows) of the gallery rows from `first` to before `last`."""
        queries = [
            [jax.device_put(part.astype(self._dtype), device) for part in self._query_parts()]
            for device in self._devices
        ]
        start, best = self._begin(first)
        step = self._rows * len(self._devices)
        for number, begin in enumerate(range(start, last, step), start=1):
            # Reading a chunk overlaps with what the devices do with the one before, but no further ahead.
            chunks = [self._read(begin + i * self._rows, last) for i in range(len(self._devices))]
            jax.block_until_ready(best)
            for i, (device, chunk) in enumerate(zip(self._devices, chunks, strict=True)):
                if chunk is None:
                    continue
                on_device = jax.device_put(chunk, device)
                at = begin + i * self._rows
                best[i] = [
                    _advance(state, part, *on_device, at, self._kind, self._tile)
                    for state, part in zip(best[i], queries[i], strict=True)
                ]
            if self._progress and number % self._progress.every == 0:
                self._keep(min(begin + step, last), best)
        return self._gathered(best)

    def _query_parts(self) -> Iterator[np.ndarray]:
        """Blocks of equal size, the last one filled up with zeros."""
        count = math.ceil(len(self._query) / _QUERIES)
        size = math.ceil(len(self._query) / count)
        for start in range(0, len(self._query), size):
            part = self._query[start : start + size]
            yield np.pad(part, ((0, size - len(part)), (0, 0)))

    def _read(self, start: int, last: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Rows of a chunk, filled up with zeros, and their squared lengths, infinite there; None: there are no rows."""
        valid = min(self._rows, last - start)
        if valid <= 0:
            return None
        source = self._gallery
        # A part of a map says the offset of the whole, so it is read like any array.
        if (
            isinstance(source, np.memmap)
            and isinstance(source.base, mmap.mmap)
            and source.filename is not None
            and source.flags.c_contiguous
        ):
            # Mapped anew, so that the pages go with the chunk.
            offset = source.offset + start * source.shape[1] * source.itemsize
            rows: np.ndarray = np.memmap(source.filename, source.dtype, "r", offset, (valid, source.shape[1]))
        else:
            rows = source[start : start + valid]
        if valid < self._rows or rows.dtype != self._dtype:
            filled = np.zeros((self._rows, rows.shape[1]), self._dtype)
            filled[:valid] = rows
            rows = filled
        lengths = squared_lengths(rows)
        if not np.isfinite(lengths).all():
            # Also where numbers are so large that their squares are not.
            bad = start + np.flatnonzero(~np.isfinite(lengths))
            raise not_finite(bad, [self._names[row] for row in bad[:3]], "gallery image")
        lengths[valid:] = np.inf
        return rows, lengths

    def _begin(self, first: int) -> tuple[int, list[list[Best]]]:
        """Row to start at and the best of each device and query block: nothing, or what `progress` has."""
        parts = list(self._query_parts())
        start = first
        values = np.full((len(self._devices), len(parts), len(parts[0]), self._count), np.inf, self._dtype)
        rows = np.full(values.shape, -1, np.int32)
        if self._progress and self._progress.file.exists():
            start, values, rows = self._resume(values.shape)
        return start, [
            [jax.device_put((value, row), device) for value, row in zip(values[i], rows[i], strict=True)]
            for i, device in enumerate(self._devices)
        ]

    def _mark(self) -> str:
        """What tells this search from others."""
        source = self._gallery
        facts = [self._kind, self._count, source.shape, source.dtype.str, self._rows, len(self._devices)]
        facts += [jax.process_index(), jax.process_count()]
        if isinstance(source, np.memmap) and source.filename is not None:
            state = os.stat(source.filename)
            facts += [state.st_size, state.st_mtime_ns]
        return hashlib.sha256(repr(facts).encode() + np.ascontiguousarray(self._query).tobytes()).hexdigest()

    def _keep(self, start: int, best: list[list[Best]]) -> None:
        """Writes `progress`, complete or not at all."""
        assert self._progress
        file = self._progress.file
        values, rows = (np.stack([[np.asarray(state[k]) for state in each] for each in best]) for k in (0, 1))
        with whole(file, ".part.npz") as part:
            np.savez(part, mark=self._mark(), start=start, values=values, rows=rows)

    def _resume(self, shape: tuple[int, ...]) -> tuple[int, np.ndarray, np.ndarray]:
        """(row to start at, distances, rows) of `progress`."""
        assert self._progress
        file = self._progress.file
        try:
            with np.load(file, allow_pickle=False) as stored:
                mark, start, values, rows = (stored[name] for name in ("mark", "start", "values", "rows"))
            start = int(start)
        except Exception as error:
            raise UserError(f"{file} is not the progress of a search ({error}); delete it") from None
        if str(mark) != self._mark() or not (values.shape == rows.shape == shape):
            raise UserError(f"{file} is the progress of another search; delete it, or write to another folder")
        if (values.dtype, rows.dtype) != (self._dtype, np.int32):
            raise UserError(f"{file} is damaged; delete it, and the search begins anew")
        return start, values, rows

    def _gathered(self, best: list[list[Best]]) -> tuple[np.ndarray, np.ndarray]:
        """Numpy's [devices, Q, K] of the best of each device."""
        values, rows = (
            np.stack([np.concatenate([np.asarray(state[k]) for state in each])[: len(self._query)] for each in best])
            for k in (0, 1)
        )
        return values, rows


def _above(number: int, unit: int) -> int:
    """The least multiple of `unit` that is not below `number`."""
    return math.ceil(number / unit) * unit


@functools.partial(jax.jit, static_argnames=("kind", "tile"), donate_argnums=0)
def _advance(
    best: Best, query: jax.Array, rows: jax.Array, lengths: jax.Array, first: int, kind: Kind, tile: int
) -> Best:
    """The best of `best` and a chunk.

    Args:
      best: ([Q, K] distances, int32 [Q, K] rows), by distance, then row; earlier rows than those of the chunk.
      query: [Q, D].
      rows: [N, D], of the gallery; N a multiple of `tile`.
      lengths: [N], of the rows, squared; infinite where a row is none.
      first: number of the first row.
      kind: of distance.
      tile: rows that are looked at together.
    """

    def look(best: Best, part: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[Best, None]:
        tiled, squared, start = part
        distances = jnp.where(jnp.isfinite(squared), pairwise(kind, query, tiled, squared), jnp.inf)
        near, place = _smallest(distances, min(best[0].shape[1], tile))
        near, row = jnp.concatenate([best[0], near], 1), jnp.concatenate([best[1], first + start + place], 1)
        # Of equal values the first come first, and these have lower rows.
        negative, order = jax.lax.top_k(-near, best[0].shape[1])
        return (-negative, jnp.take_along_axis(row, order, axis=1)), None

    starts = jnp.arange(0, len(rows), tile, dtype=jnp.int32)
    return jax.lax.scan(look, best, (rows.reshape(-1, tile, rows.shape[1]), lengths.reshape(-1, tile), starts))[0]


def _smallest(values: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """([Q, count] values, int32 places) of the smallest of [Q, N], equal ones by place; N a multiple of _GROUP."""
    groups = values.reshape(len(values), -1, _GROUP)
    if groups.shape[1] <= 2 * count:
        negative, place = jax.lax.top_k(-values, count)
        return -negative, place
    # Groups by their smallest: the best `count` of these hold the best `count` values. In the order of places again,
    # so that of equal values the first come first.
    _, chosen = jax.lax.top_k(-groups.min(axis=2), count)
    chosen = jnp.sort(chosen, axis=1)
    few = jnp.take_along_axis(groups, chosen[:, :, None], axis=1).reshape(len(values), -1)
    negative, place = jax.lax.top_k(-few, count)
    group = jnp.take_along_axis(chosen, place // _GROUP, axis=1)
    return -negative, group * _GROUP + place % _GROUP
