"""CMC, mean average precision and mINP, in numpy on the host.

XLA's sort on a CPU is several times slower than numpy's, and nothing needs a full sort of indices: the rank of a right
match is the number of kept gallery samples that are closer, plus one. Of equally distant samples the earlier one of the
gallery ranks first, as a stable sort would have it.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.retrieval.protocols import Protocol, Table


@dataclasses.dataclass(frozen=True)
class Labels:
    """Identity, camera and scene of N samples, each int [N]."""

    identity: np.ndarray
    camera: np.ndarray
    scene: np.ndarray


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of Q queries, as shares in [0, 1].

    Attributes:
      mAP: mean over valid queries of the average precision.
      mINP: mean over valid queries of (right matches) / (rank of the last right match), Ye et al. 2021 (AGW), eq. 9.
      cmc: float64 [max_rank], share of valid queries whose first right match is at or before each rank.
      average_precision: float64 [Q], NaN where a query is skipped.
      inverse_negative_penalty: float64 [Q], likewise.
      first_hit: int64 [Q], rank of the first right match from 1; 0 where a query is skipped.
      absent: number of queries whose identity the gallery does not have.
      removed: number of queries all of whose right matches the protocol removes.
    """

    mAP: float
    mINP: float
    cmc: np.ndarray
    average_precision: np.ndarray
    inverse_negative_penalty: np.ndarray
    first_hit: np.ndarray
    absent: int
    removed: int

    @property
    def num_skipped(self) -> int:
        """Queries without a right match, which do not count."""
        return self.absent + self.removed

    @property
    def num_valid(self) -> int:
        """Queries that count."""
        return len(self.first_hit) - self.num_skipped

    def rank(self, rank: int) -> float:
        """CMC at a rank, from 1."""
        return float(self.cmc[min(rank, len(self.cmc)) - 1])

    def explain(self) -> str:
        """Why queries were skipped, in a sentence; empty where none was."""
        if not self.num_skipped:
            return ""
        reasons = []
        if self.absent:
            reasons.append(f"{self.absent} have an identity that the gallery lacks")
        if self.removed:
            reasons.append(f"{self.removed} lose all their right matches to the protocol's rule")
        return f"{self.num_skipped} of {len(self.first_hit)} queries are skipped: {' and '.join(reasons)}"


def evaluate(distances: np.ndarray, query: Table, gallery: Table, protocol: Protocol) -> Scores:
    """Scores a distance matrix.

    Args:
      distances: float [Q, G].
      query: labels of the rows.
      gallery: labels of the columns.
      protocol: which gallery samples a query is not compared with, and the length of the CMC.

    Raises:
      UserError: there is no query or no gallery, no query is valid, or the shapes do not agree.
    """
    count, size = len(query.identity), len(gallery.identity)
    if not count or not size:
        empty = "query" if not count else "gallery"
        raise UserError(f"the {empty} is empty: there is nothing to rank; check the split and the protocol")
    if distances.shape != (count, size):
        raise UserError(f"distances are {distances.shape}, but there are {count} queries and {size} gallery samples")
    length = min(protocol.max_rank, size)
    precision, penalty = np.full(count, np.nan), np.full(count, np.nan)
    first = np.zeros(count, np.int64)
    absent = removed = 0
    for row in range(count):
        kept = ~protocol.ignored(query, gallery, row)
        right = np.asarray(gallery.identity) == query.identity[row]
        ranks = ranks_of(distances[row][kept], np.flatnonzero(right[kept]))
        if not len(ranks):
            absent, removed = (absent + 1, removed) if not right.any() else (absent, removed + 1)
            continue
        first[row] = ranks[0]
        precision[row] = np.mean(np.arange(1, len(ranks) + 1) / ranks)
        penalty[row] = len(ranks) / ranks[-1]
    valid = first > 0
    if not valid.any():
        raise UserError(
            f"none of {count} queries has a right match left under {protocol.describe()}: {absent} have an "
            f"identity that the gallery lacks, {removed} lose all matches to the rule; try --config.eval.protocol=plain"
        )
    hits = np.bincount(np.minimum(first[valid], length + 1), minlength=length + 2)[1 : length + 1]
    return Scores(
        mAP=float(precision[valid].mean()),
        mINP=float(penalty[valid].mean()),
        cmc=np.cumsum(hits) / valid.sum(),
        average_precision=precision,
        inverse_negative_penalty=penalty,
        first_hit=first,
        absent=absent,
        removed=removed,
    )


def ranks_of(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Ranks, from 1 and ascending, that the entries `chosen` of `values` would have after a stable sort.

    Args:
      values: float [G].
      chosen: int [R], positions in `values`, ascending.

    Returns:
      int64 [R].
    """
    ordered = np.sort(values)
    wanted = values[chosen]
    before = np.searchsorted(ordered, wanted, side="left")
    tied = np.searchsorted(ordered, wanted, side="right") - before > 1
    for index in np.flatnonzero(tied):
        before[index] += np.count_nonzero(values[: chosen[index]] == wanted[index])
    return np.sort(before) + 1
