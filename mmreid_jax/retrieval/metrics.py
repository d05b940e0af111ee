"""CMC, mean average precision and mINP, in numpy on the host.

XLA's sort on a CPU is several times slower than numpy's, and nothing needs a full sort of indices: the rank of a right
match is the number of kept gallery samples that are closer, plus one. Of equally distant samples the earlier one of the
gallery ranks first, as a stable sort would have it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.retrieval.protocols import REMOVALS, Protocol, Table


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
      rule: what the protocol removes, in words.
    """

    mAP: float
    mINP: float
    cmc: np.ndarray
    average_precision: np.ndarray
    inverse_negative_penalty: np.ndarray
    first_hit: np.ndarray
    absent: int
    removed: int
    rule: str = ""

    @property
    def num_skipped(self) -> int:
        """Queries without a right match, which do not count."""
        return self.absent + self.removed

    @property
    def num_valid(self) -> int:
        """Queries that count."""
        return len(self.first_hit) - self.num_skipped

    def rank(self, rank: int) -> float:
        """CMC at a rank, from 1.

        Raises:
          UserError: the rank lies beyond the curve, which has not reached 1 yet.
        """
        if rank < 1 or (rank > len(self.cmc) and self.cmc[-1] < 1):
            raise UserError(f"the CMC goes from rank 1 to {len(self.cmc)}; there is no rank {rank}")
        return float(self.cmc[min(rank, len(self.cmc)) - 1])

    def explain(self) -> str:
        """Why queries were skipped, in a sentence; empty where none was."""
        if not self.num_skipped:
            return ""
        why = _why(self.absent, self.removed, self.rule)
        return f"{self.num_skipped} of {len(self.first_hit)} queries are skipped: {why}"


def evaluate(distances: np.ndarray | Iterable[np.ndarray], query: Table, gallery: Table, protocol: Protocol) -> Scores:
    """Scores a distance matrix.

    Args:
      distances: float [Q, G], or its rows in blocks of any size (`Protocol.blocks`), so that it never is in memory.
      query: labels of the rows.
      gallery: labels of the columns.
      protocol: which gallery samples a query is not compared with, and the length of the CMC.

    Raises:
      UserError: there is no query or no gallery, no query is valid, the shapes do not agree, or a distance is NaN.
    """
    count, size = len(query.identity), len(gallery.identity)
    if not count or not size:
        empty = "query" if not count else "gallery"
        raise UserError(f"the {empty} is empty: there is nothing to rank; check the split and the protocol")
    precision, penalty = np.full(count, np.nan), np.full(count, np.nan)
    first = np.zeros(count, np.int64)
    absent = removed = 0
    left_out = np.zeros(size, bool)
    with_identity = _positions(np.asarray(gallery.identity))
    for row, values, ordered in _rows(distances, count, size):
        same = with_identity.get(int(query.identity[row]), _NOWHERE)
        ignored = protocol.removed(query, gallery, row, same)
        left_out[ignored] = True
        right = same[~left_out[same]]
        left_out[ignored] = False
        if not len(right):
            absent, removed = absent + (not len(same)), removed + bool(len(same))
            continue
        ranks = ranks_of(values, right, ignored, ordered)
        first[row] = ranks[0]
        precision[row] = np.mean(np.arange(1, len(ranks) + 1) / ranks)
        penalty[row] = len(ranks) / ranks[-1]
    valid = first > 0
    rule = REMOVALS[protocol.removes]
    if not valid.any():
        raise UserError(
            f"none of {count} queries has a right match left under protocol {protocol.name} v{protocol.version}:"
            f" {_why(absent, removed, rule)}; check the split, or compare all with --config.eval.protocol=plain"
        )
    length = min(protocol.max_rank, size)
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
        rule=rule,
    )


def single_shot_cmc(
    distances: np.ndarray | Iterable[np.ndarray],
    query: Table,
    gallery: Table,
    protocol: Protocol,
    *,
    repeats: int = 10,
    seed: int = 0,
) -> np.ndarray:
    """CMC where the gallery holds one sample of every identity, drawn anew `repeats` times for each query.

    Draws are those of numpy's legacy generator, seeded once: for each query with a right match, repeat and identity, in
    the order in which identities first appear in the ranking of what the protocol keeps, one of its ranked samples.
    mAP is not defined by single shots; the protocol takes that of `evaluate`.

    Reference: the CUHK03 protocol of Li et al. 2014, as in torchreid.

    Args:
      distances: see `evaluate`.
      query: labels of the rows.
      gallery: labels of the columns.
      protocol: see `evaluate`.
      repeats: draws for each query.
      seed: of the draws.

    Returns:
      float64 [max_rank], at most as long as the gallery has identities.

    Raises:
      UserError: see `evaluate`.
    """
    count, size = len(query.identity), len(gallery.identity)
    identity = np.asarray(gallery.identity)
    length = min(protocol.max_rank, len(np.unique(identity)))
    generator = np.random.RandomState(seed)
    hits, valid = np.zeros(length + 2, np.int64), 0
    for row, values, _ in _rows(distances, count, size):
        kept = np.flatnonzero(~protocol.ignored(query, gallery, row))
        ranked = identity[kept[np.argsort(values[kept], kind="stable")]]
        if not np.any(ranked == query.identity[row]):
            continue
        names, first, owner, sizes = np.unique(ranked, return_index=True, return_inverse=True, return_counts=True)
        positions = np.split(np.argsort(owner, kind="stable"), np.cumsum(sizes)[:-1])
        appearing = np.argsort(first)
        draws = generator.randint(0, np.broadcast_to(sizes[appearing], (repeats, len(names))))
        chosen = np.stack([positions[k][draws[:, i]] for i, k in enumerate(appearing)], axis=1)
        right = chosen[:, names[appearing] == query.identity[row]]
        rank = np.sum(chosen < right, axis=1) + 1
        hits += np.bincount(np.minimum(rank, length + 1), minlength=length + 2)
        valid += 1
    if not valid:
        raise UserError(f"none of {count} queries has a right match left under protocol {protocol.label}")
    return np.cumsum(hits[1 : length + 1]) / (repeats * valid)


def ranks_of(
    values: np.ndarray, chosen: np.ndarray, ignored: np.ndarray | None = None, ordered: np.ndarray | None = None
) -> np.ndarray:
    """Ranks, from 1 and ascending, that the entries `chosen` would have after a stable sort without those `ignored`.

    Args:
      values: float [G].
      chosen: int [R], positions in `values`, ascending.
      ignored: int [I], other positions, which are left out.
      ordered: `values` in ascending order, where that is known.

    Returns:
      int64 [R].
    """
    ordered = np.sort(values) if ordered is None else ordered
    left_out = values[:0] if ignored is None else np.sort(values[ignored])
    wanted = values[chosen]
    closer = np.searchsorted(ordered, wanted, side="left")
    tied = np.searchsorted(ordered, wanted, side="right") - closer > 1
    before = closer - np.searchsorted(left_out, wanted, side="left")
    if tied.any():
        kept = np.ones(len(values), bool)
        kept[ignored if ignored is not None else _NOWHERE] = False
        for index in np.flatnonzero(tied):
            earlier = slice(chosen[index])
            before[index] += np.count_nonzero(kept[earlier] & (values[earlier] == wanted[index]))
    return np.sort(before) + 1


_NOWHERE = np.zeros(0, np.int64)
# Rows that are sorted together.
_ROWS = 256


def _positions(identity: np.ndarray) -> dict[int, np.ndarray]:
    """Identity -> its positions, ascending."""
    order = np.argsort(identity, kind="stable")
    names, starts = np.unique(identity[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, starts[1:]), strict=True))


def _rows(
    distances: np.ndarray | Iterable[np.ndarray], count: int, size: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(number of the query, its distances [G], the same in ascending order), for every query.

    Raises:
      UserError: there are not `count` rows of `size` distances, or a distance is NaN.
    """
    blocks = [distances] if isinstance(distances, np.ndarray) else distances
    row = 0
    for block in blocks:
        if np.ndim(block) != 2 or block.shape[1] != size or row + len(block) > count:
            raise UserError(
                f"distances are {list(np.shape(block))} from query {row} on, but there are {count} queries and"
                f" {size} gallery samples"
            )
        for start in range(0, len(block), _ROWS):
            part = block[start : start + _ROWS]
            for values, ordered in zip(part, np.sort(part, axis=1), strict=True):
                # NaN sorts last.
                if np.isnan(ordered[-1]):
                    raise UserError(f"distances of query {row} are NaN; look for NaN in the features or the weights")
                yield row, values, ordered
                row += 1
    if row != count:
        raise UserError(f"there are distances for {row} queries, but {count} queries")


def _why(absent: int, removed: int, rule: str) -> str:
    """Why `absent` + `removed` queries have no right match."""
    reasons = []
    if absent:
        reasons.append(f"{absent} have an identity that the gallery lacks")
    if removed:
        reasons.append(f"{removed} lose all their right matches to the protocol ({rule})")
    return " and ".join(reasons)
