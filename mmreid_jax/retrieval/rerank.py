"""k-reciprocal re-ranking: distances that also ask how much the neighbourhoods of two samples overlap.

Reference: Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017. The authors' code
holds several matrices of all samples by all samples; here distances are made in blocks and neighbourhoods are sparse,
so memory is that of the query rows plus a few hundred entries per sample (`memory_estimate`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.retrieval.distances import squared_euclidean

BLOCK = 512
Sparse = tuple[np.ndarray, np.ndarray]
"""A row of a sparse matrix: columns, ascending, and values."""


def k_reciprocal(
    query: np.ndarray,
    gallery: np.ndarray,
    k1: int = 50,
    k2: int = 15,
    lambda_value: float = 0.3,
    block: int = BLOCK,
    precision: Any = np.float32,
) -> np.ndarray:
    """Re-ranked distances.

    Every sample is described by its k1-reciprocal neighbours (those that have it among their own nearest), extended by
    the reciprocal neighbours of these where they overlap enough, weighted by exp(-distance) and averaged over its k2
    nearest neighbours. The result is lambda * distance + (1 - lambda) * Jaccard distance of the descriptions. Distances
    are squared Euclidean, each row divided by its maximum.

    Args:
      query: features [Q, D], usually of length one.
      gallery: features [G, D].
      k1: neighbours that describe a sample.
      k2: neighbours that a description is averaged over; 1 for none.
      lambda_value: weight of the distance itself.
      block: rows of distances at a time.
      precision: type of the descriptions and their overlaps. Parity: float16 rounds as the authors' code does, which
        moves single distances by up to 5e-3.

    Returns:
      float32 [Q, G].

    Raises:
      UserError: there are not k1 + 1 samples, or a parameter makes no sense.
    """
    samples = np.concatenate([query, gallery])
    if k1 < 1 or k2 < 1 or not 0 <= lambda_value <= 1:
        raise UserError(f"re-ranking needs k1, k2 >= 1 and lambda in [0, 1]; got {k1}, {k2}, {lambda_value}")
    if len(samples) <= max(k1, k2):
        raise UserError(f"re-ranking with k1={k1}, k2={k2} needs more than {len(samples)} samples; choose smaller ones")
    neighbours, scale, direct = _neighbours(samples, len(query), max(k1 + 1, k2), block)
    dtype = np.dtype(precision)
    described = _describe(samples, neighbours, scale, k1, dtype)
    if k2 > 1:
        described = _average(described, neighbours[:, :k2])
    overlap = _overlaps(described, len(query), dtype)[:, len(query) :]
    jaccard = 1 - overlap / (2 - overlap)
    return (lambda_value * direct[:, len(query) :] + (1.0 - lambda_value) * jaccard).astype(np.float32)


def memory_estimate(queries: int, gallery: int, k1: int = 50, k2: int = 15, block: int = BLOCK) -> int:
    """Bytes that `k_reciprocal` needs at most, roughly."""
    samples = queries + gallery
    entries = samples * min(samples, (k1 + 1) * k2)
    return 8 * queries * samples * 2 + 4 * block * samples * 2 + 12 * entries


def _neighbours(samples: np.ndarray, queries: int, count: int, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest samples of every sample, itself among them, int [N, count]; row maxima [N]; query rows [Q, N], scaled."""
    nearest, scale, direct = [], [], []
    for start in range(0, len(samples), block):
        apart = squared_euclidean(samples[start : start + block], samples)
        scale.append(apart.max(axis=1))
        nearest.append(np.argsort(apart, axis=1, kind="stable")[:, :count])
        rows = max(0, min(queries - start, len(apart)))
        direct.append(apart[:rows] / scale[-1][:rows, None])
    return np.concatenate(nearest), np.concatenate(scale), np.concatenate(direct)


def _reciprocal(neighbours: np.ndarray, row: int, k: int) -> np.ndarray:
    """The k-reciprocal neighbours of a sample, itself among them."""
    forward = neighbours[row, : k + 1]
    return forward[(neighbours[forward, : k + 1] == row).any(axis=1)]


def _describe(samples: np.ndarray, neighbours: np.ndarray, scale: np.ndarray, k1: int, dtype: np.dtype) -> list[Sparse]:
    """Sparse rows (columns, weights of sum one): the weighted, extended k1-reciprocal neighbours of every sample."""
    half = int(np.around(k1 / 2))
    near = [_reciprocal(neighbours, row, half) for row in range(len(samples))]
    rows = []
    for row in range(len(samples)):
        own = _reciprocal(neighbours, row, k1)
        members = set(own.tolist())
        extended = [own]
        for candidate in own:
            theirs = near[candidate]
            if sum(index in members for index in theirs.tolist()) > 2 / 3 * len(theirs):
                extended.append(theirs)
        columns = np.unique(np.concatenate(extended))
        apart = np.square(samples[columns] - samples[row]).sum(axis=1) / scale[row]
        weights = np.exp(-apart)
        rows.append((columns, (weights / weights.sum()).astype(dtype)))
    return rows


def _average(rows: list[Sparse], neighbours: np.ndarray) -> list[Sparse]:
    """Every row replaced by the mean of the rows of its neighbours [N, k2]."""
    averaged = []
    for near in neighbours:
        columns = np.concatenate([rows[index][0] for index in near])
        weights = np.concatenate([rows[index][1] for index in near])
        unique, back = np.unique(columns, return_inverse=True)
        averaged.append((unique, (np.bincount(back, weights) / len(near)).astype(weights.dtype)))
    return averaged


def _overlaps(rows: list[Sparse], queries: int, dtype: np.dtype) -> np.ndarray:
    """Sum over columns of min(V_q, V_n) for every query q and sample n: [Q, N], added up column by column."""
    count = len(rows)
    columns = np.concatenate([columns for columns, _ in rows])
    weights = np.concatenate([weights for _, weights in rows])
    owner = np.repeat(np.arange(count), [len(columns) for columns, _ in rows])
    # Transposed: who has a column, and with which weight.
    order = np.argsort(columns, kind="stable")
    owner, weights = owner[order], weights[order]
    starts = np.searchsorted(columns[order], np.arange(count + 1))
    out = np.zeros((queries, count), dtype)
    for row in range(queries):
        for column, weight in zip(*rows[row], strict=True):
            span = slice(starts[column], starts[column + 1])
            out[row, owner[span]] += np.minimum(weights[span], weight)
    return out
