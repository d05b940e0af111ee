"""CMC, mean average precision and mINP, in numpy on the host.

Nothing needs a sort of the gallery: the rank of a right match is the number of kept gallery samples that are closer,
plus one, and its rank among people is the number of identities that have a closer sample, plus one
(`mmreid_jax.retrieval.ranking` counts them). Of equally distant samples the earlier one of the gallery ranks first, as
a stable sort would have it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol as Interface

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.retrieval.galleries import Pool
from mmreid_jax.retrieval.protocols import REMOVALS, Protocol, Table
from mmreid_jax.retrieval.ranking import ColumnGroups, Places, Ranking, Scratch


@dataclasses.dataclass(frozen=True)
class Labels:
    """What is known of N samples.

    Attributes:
      identity: int [N].
      camera: int [N].
      scene: int [N]; not given: 0 everywhere, for data sets without scenes.
    """

    identity: np.ndarray
    camera: np.ndarray
    scene: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))

    def __post_init__(self) -> None:
        if not len(self.scene):
            object.__setattr__(self, "scene", np.zeros_like(self.identity))


class FiledTable(Table, Pool, Interface):
    """A table from which galleries can be drawn."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of Q queries, as shares in [0, 1].

    Attributes:
      mAP: mean over valid queries of the average precision.
      mINP: mean over valid queries of (right matches) / (rank of the last right match), Ye et al. 2021 (AGW), eq. 9.
      cmc: float64 [max_rank], share of valid queries whose first right match is at or before each rank; the protocol
        says whether a rank counts images or distinct identities.
      average_precision: float64 [Q], NaN where a query is skipped.
      inverse_negative_penalty: float64 [Q], likewise.
      first_hit: int64 [Q], rank of the first right match from 1, as the CMC counts; 0 where a query is skipped.
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


@dataclasses.dataclass(frozen=True)
class Trials:
    """Scores of one search over the galleries of several trials, at least one.

    mAP, mINP, CMC and ranks are means over the trials, as publications report them.
    """

    scores: tuple[Scores, ...]

    def values(self, name: str) -> np.ndarray:
        """float64 [trials]: ``mAP``, ``mINP`` or a rank such as ``R10`` of every trial.

        Raises:
          UserError: there is no such score.
        """
        if name in ("mAP", "mINP"):
            return np.array([getattr(scores, name) for scores in self.scores])
        if name[:1] == "R" and name[1:].isdecimal():
            return np.array([scores.rank(int(name[1:])) for scores in self.scores])
        raise UserError(f"there is no score {name!r}; choose mAP, mINP or a rank such as R10")

    def std(self, name: str) -> float:
        """Standard deviation of a score over the trials (of the sample, over n - 1); 0 for one trial."""
        return float(self.values(name).std(ddof=1)) if len(self.scores) > 1 else 0.0

    @property
    def mAP(self) -> float:
        """Mean over the trials."""
        return float(self.values("mAP").mean())

    @property
    def mINP(self) -> float:
        """Mean over the trials."""
        return float(self.values("mINP").mean())

    @property
    def cmc(self) -> np.ndarray:
        """float64 [max_rank], mean over the trials; a curve of fewer ranks keeps its last value."""
        length = max(len(scores.cmc) for scores in self.scores)
        return np.mean([np.pad(s.cmc, (0, length - len(s.cmc)), mode="edge") for s in self.scores], axis=0)

    def rank(self, rank: int) -> float:
        """CMC at a rank, from 1, mean over the trials; errors as `Scores.rank`."""
        return float(self.values(f"R{rank}").mean())

    @property
    def num_valid(self) -> int:
        """Queries that count, in the trial where they are fewest."""
        return min(scores.num_valid for scores in self.scores)

    @property
    def num_skipped(self) -> int:
        """Queries without a right match, in the trial where they are most."""
        return max(scores.num_skipped for scores in self.scores)

    def explain(self) -> str:
        """Why queries were skipped, in the trial where they are most; empty where none was."""
        return max(self.scores, key=lambda scores: scores.num_skipped).explain()

    def summary(self, ranks: Sequence[int] = (1, 10, 20)) -> str:
        """The scores in percent on one line, with their spread where there are several trials."""
        names = [*(f"R{rank}" for rank in ranks), "mAP", "mINP"]
        several = len(self.scores) > 1
        parts = [
            f"{name} {100 * self.values(name).mean():.2f}" + (f" ± {100 * self.std(name):.2f}" if several else "")
            for name in names
        ]
        return ", ".join(parts) + (f" (mean ± standard deviation of {len(self.scores)} trials)" if several else "")


def evaluate(distances: np.ndarray | Iterable[np.ndarray], query: Table, gallery: Table, protocol: Protocol) -> Scores:
    """Scores a distance matrix.

    Args:
      distances: float [Q, G], or its rows in blocks of any size (`Protocol.blocks`), so that it never is in memory.
      query: labels of the rows.
      gallery: labels of the columns.
      protocol: which gallery samples a query is not compared with, and what the CMC counts up to which rank. Its own
        way to draw galleries is not used here: `gallery` is what queries are compared with.

    Raises:
      UserError: there is no query or no gallery, no query is valid, the shapes do not agree, or a distance is NaN.
    """
    count, size = _sizes(query, gallery)
    search = _Search(query, gallery, protocol, Scratch())
    parts = [search.matches(start, block) for start, block in _blocks(distances, count, size)]
    return _scores(parts, protocol, size)


def evaluate_trials(
    distances: np.ndarray | Iterable[np.ndarray], query: Table, pool: FiledTable, protocol: Protocol
) -> Trials:
    """Scores the galleries of all trials, whose distances are columns of one matrix, computed once.

    Args:
      distances: float [Q, N] of all queries and the whole pool, or its rows in blocks (see `evaluate`).
      query: labels of the rows.
      pool: labels and file names of the columns.
      protocol: of which the gallery is drawn; without a draw the whole pool is the gallery of one trial.

    Raises:
      UserError: see `evaluate` and `Gallery.positions`.
    """
    if not protocol.gallery:
        return Trials((evaluate(distances, query, pool, protocol),))
    count, size = _sizes(query, pool)
    draws = protocol.galleries(pool)
    drawn = [Labels(pool.identity[rows], pool.camera[rows], pool.scene[rows]) for rows in draws]
    if protocol.swapped:
        used, columns = np.unique(np.concatenate(draws), return_inverse=True)
        columns_used = np.concatenate([block[:, used].T for _, block in _blocks(distances, count, size)], axis=1)
        ends = np.cumsum([len(rows) for rows in draws])[:-1]
        sides = zip(np.split(columns, ends), drawn, strict=True)
        return Trials(tuple(evaluate(columns_used[rows], labels, query, protocol) for rows, labels in sides))
    scratch = Scratch()
    searches = [_Search(query, labels, protocol, scratch) for labels in drawn]
    parts: list[list[_Matches]] = [[] for _ in draws]
    for start, block in _blocks(distances, count, size, max(map(len, draws))):
        for part, columns, search in zip(parts, draws, searches, strict=True):
            part.append(search.matches(start, np.take(block, columns, axis=1)))
    scored = (_scores(part, protocol, len(columns)) for part, columns in zip(parts, draws, strict=True))
    return Trials(tuple(scored))


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
    rows = ((start + i, values) for start, block in _blocks(distances, count, size) for i, values in enumerate(block))
    for row, values in rows:
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


# Distances that are looked at together: what is made of them stays in the cache of a processor.
_TOGETHER = 1 << 17


@dataclasses.dataclass(frozen=True)
class _Matches:
    """What `Scores` holds of some queries; `known` bool [B]: the gallery has the identity."""

    first: np.ndarray
    precision: np.ndarray
    penalty: np.ndarray
    known: np.ndarray


def _sizes(query: Table, gallery: Table) -> tuple[int, int]:
    """Numbers of queries and of gallery samples; `UserError` where there is none."""
    count, size = len(query.identity), len(gallery.identity)
    if not count or not size:
        empty = "query" if not count else "gallery"
        raise UserError(f"the {empty} is empty: there is nothing to rank; check the split and the protocol")
    return count, size


def _blocks(
    distances: np.ndarray | Iterable[np.ndarray], count: int, size: int, looked_at: int = 0
) -> Iterator[tuple[int, np.ndarray]]:
    """Pieces of bounded size of the distances of all queries.

    Args:
      distances: float [count, size], or its rows in blocks.
      count: of queries.
      size: of the gallery or pool.
      looked_at: columns that are looked at together, if fewer than all.

    Yields:
      (number of the first query, distances [B, size]).

    Raises:
      UserError: there are not `count` rows of `size` distances, or a distance is NaN.
    """
    row, together = 0, max(1, _TOGETHER // (looked_at or size))
    for block in [distances] if isinstance(distances, np.ndarray) else distances:
        if np.ndim(block) != 2 or block.shape[1] != size or row + len(block) > count:
            raise UserError(
                f"distances are {list(np.shape(block))} from query {row} on, but there are {count} queries and"
                f" {size} gallery samples"
            )
        if not len(block):
            continue
        for part in np.array_split(block, -(-len(block) // together)):
            # The smallest of several values is NaN where one is.
            if np.isnan(part.min()):
                unknown = np.flatnonzero(np.isnan(part).any(axis=1))[0]
                raise UserError(
                    f"distances of query {row + unknown} are NaN; look for NaN in the features or the weights"
                )
            yield row, part
            row += len(part)
    if row != count:
        raise UserError(f"there are distances for {row} queries, but {count} queries")


class _Search:
    """Queries and a gallery under a protocol, whose distances come in blocks."""

    def __init__(self, query: Table, gallery: Table, protocol: Protocol, scratch: Scratch) -> None:
        self._query, self._gallery, self._protocol, self._scratch = query, gallery, protocol, scratch
        self._people = ColumnGroups.by(gallery.identity)
        self._scenes = ColumnGroups.by(gallery.scene) if "time" in protocol.removes else None
        self._hidden = np.flatnonzero(gallery.camera == 1) if protocol.removes == "camera_2_for_camera_3" else None

    def matches(self, start: int, values: np.ndarray) -> _Matches:
        """Ranks the right matches of the queries from `start` on, whose distances are `values` [B, G]."""
        if values.dtype != np.float32:
            values = values.astype(np.float32 if values.dtype == np.float16 else np.float64, copy=False)
        owner, column, removed, known = self._pairs(slice(start, start + len(values)))
        ranking = Ranking(values, owner, column, removed, self._scratch)
        ranks = ranking.closer + 1
        counts = np.bincount(owner, minlength=len(values))
        valid = counts > 0
        starts = (np.cumsum(counts) - counts)[valid]
        first, precision, penalty = np.zeros(len(values), np.int64), *np.full((2, len(values)), np.nan)
        share = (np.arange(1, len(ranks) + 1) - np.repeat(starts, counts[valid])) / ranks
        precision[valid] = np.bincount(owner, share, len(values))[valid] / counts[valid]
        penalty[valid] = counts[valid] / ranks[starts + counts[valid] - 1]
        first[valid] = ranks[starts]
        if self._protocol.counts == "identities":
            # Where the first match ranks first of all images, it does so of people too.
            entries = starts[ranks[starts] > 1]
            people = self._people
            first[owner[entries]] = ranking.labels_before(entries, people.of, len(people.names)) + 1
        return _Matches(first, precision, penalty, known)

    def _pairs(self, rows: slice) -> tuple[np.ndarray, np.ndarray, list[Places], np.ndarray]:
        """Of B queries: (row int64 [M], column int64 [M]) of right matches, places removed, identity known bool [B]."""
        query, gallery, protocol = self._query, self._gallery, self._protocol
        owner, column, counts = self._people.columns(query.identity[rows])
        lost = protocol.removes_pairs(query, gallery, owner + rows.start, column)
        removed: list[Places] = [(owner[lost], column[lost])]
        if self._scenes is not None:
            removed.append(self._scenes.columns(query.scene[rows])[:2])
        if self._hidden is not None:
            removed.append((np.flatnonzero(query.camera[rows] == 2)[:, None], self._hidden))
        return owner[~lost], column[~lost], removed, counts > 0


def _scores(parts: Sequence[_Matches], protocol: Protocol, size: int) -> Scores:
    """The scores of all queries, of which `parts` hold some each; `size`: samples in the gallery."""
    first, precision, penalty, known = (
        np.concatenate([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(_Matches)
    )
    valid = first > 0
    absent = int(np.count_nonzero(~known))
    removed = int(np.count_nonzero(known & ~valid))
    rule = REMOVALS[protocol.removes]
    if not valid.any():
        raise UserError(
            f"none of {len(first)} queries has a right match left under protocol {protocol.name} v{protocol.version}:"
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


def _why(absent: int, removed: int, rule: str) -> str:
    """Why `absent` + `removed` queries have no right match."""
    reasons = []
    if absent:
        reasons.append(f"{absent} have an identity that the gallery lacks")
    if removed:
        reasons.append(f"{removed} lose all their right matches to the protocol ({rule})")
    return " and ".join(reasons)
