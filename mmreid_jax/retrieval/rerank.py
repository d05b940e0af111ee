"""k-reciprocal re-ranking: distances that also ask how much the neighbourhoods of two samples overlap.

Reference: Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017. The authors' code
holds several matrices of all samples by all samples; here distances are made in blocks of rows and neighbourhoods are
sparse, so memory is that of the query-gallery distances plus some entries per sample (`memory_estimate`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any
from typing import Protocol as Interface

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.retrieval.distances import Kind, blocks, check_kind, l2_normalise, nearest

BLOCK = 512
# Samples whose neighbours' neighbours are looked up together.
_ROWS = 128
Sparse = tuple[np.ndarray, np.ndarray]
"""A row of a sparse matrix: columns, ascending, and values."""


class Watch(Interface):
    """Passes the items of one of several stages on, and may count them: a progress bar."""

    def __call__(self, items: Iterable[Any], total: int, stage: str) -> Iterable[Any]:
        """The items, of which there are `total`; `stage` says what is being done."""
        ...


def unwatched(items: Iterable[Any], total: int, stage: str) -> Iterable[Any]:
    """A `Watch` that shows nothing."""
    del total, stage
    return items


@dataclasses.dataclass(frozen=True)
class RerankOptions:
    """The numbers of `k_reciprocal`; see there."""

    k1: int = 50
    k2: int = 15
    lambda_value: float = 0.3
    distance: Kind = "euclidean"

    def describe(self) -> str:
        """A few words for beside the scores."""
        kind = "" if self.distance == "euclidean" else f", of {self.distance.replace('_', ' ')} distances"
        return f"re-ranked (k1={self.k1}, k2={self.k2}, lambda={self.lambda_value:g}{kind})"


def check(options: RerankOptions, samples: int) -> None:
    """`UserError` where so many samples, queries and gallery together, cannot be re-ranked with these options."""
    check_kind(options.distance, "distance of the re-ranking")
    k1, k2, weight = options.k1, options.k2, options.lambda_value
    if k1 < 1 or k2 < 1 or not 0 <= weight <= 1:
        raise UserError(f"re-ranking needs k1, k2 >= 1 and lambda in [0, 1]; got {k1}, {k2}, {weight}")
    if samples <= max(k1, k2):
        raise UserError(f"re-ranking with k1={k1}, k2={k2} needs more than {samples} samples; choose smaller ones")


def k_reciprocal(
    query: np.ndarray,
    gallery: np.ndarray,
    k1: int = 50,
    k2: int = 15,
    lambda_value: float = 0.3,
    distance: Kind = "euclidean",
    block: int = BLOCK,
    precision: Any = np.float32,
    watch: Watch = unwatched,
) -> np.ndarray:
    """Re-ranked distances.

    Every sample is described by its k1-reciprocal neighbours (those that have it among their own nearest), extended by
    the reciprocal neighbours of these where they overlap enough, weighted by exp(-distance) and averaged over its k2
    nearest neighbours. The result is lambda * distance + (1 - lambda) * Jaccard distance of the descriptions. Distances
    are squared, and each row is divided by its maximum.

    Args:
      query: features [Q, D], usually of length one.
      gallery: features [G, D].
      k1: neighbours that describe a sample.
      k2: neighbours that a description is averaged over; 1 for none.
      lambda_value: weight of the distance itself.
      distance: kind of the distances that are squared. Parity: ``squared_euclidean`` makes them fourth powers, as in
        torchreid, which squares what is squared already; so does IEEE.
      block: rows of distances at a time.
      precision: type of the descriptions and their overlaps. Parity: float16 rounds as the authors' code does, which
        moves single distances by up to 5e-3.
      watch: wraps what is gone through, for a progress bar.

    Returns:
      float32 [Q, G].

    Raises:
      UserError: there are not k1 + 1 samples, or a parameter makes no sense.
    """
    check(RerankOptions(k1, k2, lambda_value, distance), len(query) + len(gallery))
    samples = np.concatenate([query, gallery])
    if distance == "cosine":
        samples = l2_normalise(samples)
    neighbours, scale, mixed = _neighbours(samples, distance, len(query), max(k1 + 1, k2), block, watch)
    dtype = np.dtype(precision)
    described = list(watch(_describe(samples, distance, neighbours, scale, k1, dtype), len(samples), "descriptions"))
    if k2 > 1:
        described = list(watch(_average(described, neighbours[:, :k2]), len(samples), "averages"))
    mixed *= lambda_value
    overlaps = watch(_overlaps(described, len(query), dtype), len(query), "overlaps")
    for row, overlap in enumerate(overlaps):
        mixed[row] += (1.0 - lambda_value) * (1 - overlap / (2 - overlap))
    return mixed


def memory_estimate(queries: int, gallery: int, k1: int = 50, k2: int = 15, block: int = BLOCK) -> int:
    """Bytes that `k_reciprocal` takes beside the features: the result, a block of distances, the neighbourhoods.

    A description is taken to hold k1 + 1 samples, and k2 times as many after averaging; measured data hold about as
    many, and half of that.
    """
    samples = queries + gallery
    described = min(samples, k1 + 1)
    averaged = min(samples, k2 * described)
    result = 4 * queries * gallery
    distances = 4 * 4 * min(block, samples) * samples
    # Columns and weights of both stages, then the transposed copy with what sorting it takes.
    entries = samples * (12 * described + (12 + 44) * averaged)
    return result + distances + entries + 8 * samples * max(k1 + 1, k2)


def _squared(distance: Kind, squared_euclidean: np.ndarray) -> np.ndarray:
    """The squares of a kind of distance from squared Euclidean ones; for cosine those of vectors of length one."""
    if distance == "euclidean":
        return squared_euclidean
    return np.square(squared_euclidean / 2 if distance == "cosine" else squared_euclidean)


def _neighbours(
    samples: np.ndarray, distance: Kind, queries: int, count: int, block: int, watch: Watch
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest samples of every sample, itself among them, int [N, count]; row maxima [N]; scaled distances [Q, G]."""
    near = np.empty((len(samples), count), np.int64)
    scale = np.empty(len(samples), samples.dtype)
    direct = np.empty((queries, len(samples) - queries), np.float32)
    start = 0
    parts = -(-len(samples) // block)
    for distances in watch(blocks("squared_euclidean", samples, samples, block), parts, "distances"):
        rows = slice(start, start + len(distances))
        near[rows], distances = nearest(distances, count), _squared(distance, distances)
        # Samples that are all alike have no distance to divide by.
        scale[rows] = np.maximum(distances.max(axis=1), np.finfo(scale.dtype).tiny)
        asked = direct[rows]
        asked[:] = distances[: len(asked), queries:] / scale[rows][: len(asked), None]
        start += len(distances)
    return near, scale, direct


def _reciprocal(neighbours: np.ndarray, k: int) -> np.ndarray:
    """Bool [N, k + 1]: which of the k nearest samples of each sample, and itself, have it among their own."""
    near = neighbours[:, : k + 1]
    out = np.empty(near.shape, bool)
    for start in range(0, len(near), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(near)))
        out[rows] = (near[near[rows]] == rows[:, None, None]).any(axis=2)
    return out


def _describe(
    samples: np.ndarray, distance: Kind, neighbours: np.ndarray, scale: np.ndarray, k1: int, dtype: np.dtype
) -> Iterator[Sparse]:
    """Sparse rows (columns, weights of sum one): the weighted, extended k1-reciprocal neighbours of every sample."""
    half = int(np.around(k1 / 2))
    near, near_half = neighbours[:, : k1 + 1], neighbours[:, : half + 1]
    reciprocal, reciprocal_half = _reciprocal(neighbours, k1), _reciprocal(neighbours, half)
    enough = 2 / 3 * reciprocal_half.sum(axis=1)
    member = np.zeros(len(samples), bool)
    for row in range(len(samples)):
        reciprocal_neighbours = near[row, reciprocal[row]]
        member[reciprocal_neighbours] = True
        candidates, mutual = near_half[reciprocal_neighbours], reciprocal_half[reciprocal_neighbours]
        accepted = (member[candidates] & mutual).sum(axis=1) > enough[reciprocal_neighbours]
        columns = np.unique(np.concatenate([reciprocal_neighbours, candidates[accepted][mutual[accepted]]]))
        member[reciprocal_neighbours] = False
        squared = _squared(distance, np.square(samples[columns] - samples[row]).sum(axis=1)) / scale[row]
        weights = np.exp(-squared)
        yield columns, (weights / weights.sum()).astype(dtype)


def _average(rows: list[Sparse], neighbours: np.ndarray) -> Iterator[Sparse]:
    """Every row replaced by the mean of the rows of its neighbours [N, k2]."""
    for near in neighbours:
        columns = np.concatenate([rows[index][0] for index in near])
        weights = np.concatenate([rows[index][1] for index in near])
        unique, back = np.unique(columns, return_inverse=True)
        yield unique, (np.bincount(back, weights) / len(near)).astype(weights.dtype)


def _overlaps(rows: list[Sparse], queries: int, dtype: np.dtype) -> Iterator[np.ndarray]:
    """Sum over columns of min(V_q, V_g), added up column by column: [G] for one query q after the other."""
    columns = np.concatenate([columns for columns, _ in rows[queries:]])
    weights = np.concatenate([weights for _, weights in rows[queries:]])
    owner = np.repeat(np.arange(len(rows) - queries), [len(columns) for columns, _ in rows[queries:]])
    # Transposed: who has a column, and with which weight.
    order = np.argsort(columns, kind="stable")
    starts = np.searchsorted(columns[order], np.arange(len(rows) + 1))
    owner, weights = owner[order], weights[order]
    for members, description in rows[:queries]:
        lengths = starts[members + 1] - starts[members]
        before = np.cumsum(lengths) - lengths
        entries = np.arange(lengths.sum()) + np.repeat(starts[members] - before, lengths)
        overlap = np.zeros(len(rows) - queries, dtype)
        np.add.at(overlap, owner[entries], np.minimum(weights[entries], np.repeat(description, lengths)))
        yield overlap
