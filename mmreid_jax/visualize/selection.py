"""How every query fared, and which queries are worth a picture: a fair spread, the hardest failures, typical successes.

Ranks here follow the evaluation protocols: the gallery in the order of distance (equal distances in gallery order),
without the samples that the protocol ignores for that query.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol as Interface

import numpy as np

from mmreid_jax.errors import UserError

Ignore = np.ndarray | Callable[[int], np.ndarray]
"""Which gallery samples a protocol ignores: bool [Q, G], or a function from the query's row to bool [G]."""


class LabelColumns(Interface):
    """The columns of a records table that ranked lists read (`mmreid_jax.data.records.Records` has them)."""

    @property
    def identity(self) -> np.ndarray:
        """Integer [N], the identity of each sample."""

    @property
    def camera(self) -> np.ndarray:
        """Integer [N], the camera of each sample, counted from 0."""


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """How each of Q queries fared.

    Attributes:
      first_hit: int [Q], rank of the first right match, counted from 1; 0 where the query has none and is skipped.
      average_precision: float64 [Q], NaN where the query is skipped.
      right: int [Q], gallery samples of the query's identity that the protocol lets count.
      removed: int [Q], gallery samples of the query's identity that the protocol ignores.
    """

    first_hit: np.ndarray
    average_precision: np.ndarray
    right: np.ndarray
    removed: np.ndarray

    @property
    def skipped(self) -> np.ndarray:
        """Bool [Q]: no right match is left, so the query does not count in any score."""
        return self.first_hit == 0


def ignored(ignore: Ignore | None, query: int, gallery_size: int) -> np.ndarray:
    """Bool [G]: the gallery samples that do not count for the query.

    Raises:
      UserError: the mask has another length than the gallery.
    """
    if ignore is None:
        return np.zeros(gallery_size, bool)
    mask = np.asarray(ignore(query) if callable(ignore) else ignore[query], bool)
    if mask.shape != (gallery_size,):
        raise UserError(
            f"the ignore mask of query {query} has shape {list(mask.shape)}, but the gallery has {gallery_size}."
        )
    return mask


def ranked(distances: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Gallery indices in rank order for one query.

    Args:
      distances: float [G].
      mask: bool [G], samples to leave out.

    Returns:
      int [G - number left out].
    """
    order = np.argsort(distances, kind="stable")
    return order[~mask[order]]


def check_distances(distances: np.ndarray, query: int, gallery: int) -> None:
    """Refuses distances that are not [query, gallery].

    Raises:
      UserError: the shape differs.
    """
    if np.shape(distances) != (query, gallery):
        raise UserError(
            f"distances have shape {list(np.shape(distances))}, but there are {query} queries and {gallery} gallery "
            "samples; give one row a query and one column a gallery sample."
        )


def outcomes(
    distances: np.ndarray, query: LabelColumns, gallery: LabelColumns, ignore: Ignore | None = None
) -> Outcomes:
    """Ranks of the first right match and average precision of every query.

    Average precision is the mean, over the right matches, of (right matches up to that rank) / rank.

    Args:
      distances: float [Q, G].
      query, gallery: labels of the rows and columns.
      ignore: which gallery samples the protocol ignores; None ignores nothing.

    Raises:
      UserError: shapes that do not agree.
    """
    size, gallery_size = len(query.identity), len(gallery.identity)
    check_distances(distances, size, gallery_size)
    first_hit, right, removed = (np.zeros(size, np.int64) for _ in range(3))
    average_precision = np.full(size, np.nan)
    for row in range(size):
        same = np.asarray(gallery.identity) == query.identity[row]
        mask = ignored(ignore, row, gallery_size)
        hits = np.flatnonzero(same[ranked(distances[row], mask)]) + 1
        right[row], removed[row] = len(hits), np.count_nonzero(same & mask)
        if len(hits):
            first_hit[row] = hits[0]
            average_precision[row] = np.mean(np.arange(1, len(hits) + 1) / hits)
    return Outcomes(first_hit, average_precision, right, removed)


def spread_of_queries(counted: np.ndarray, number: int, seed: int = 0) -> np.ndarray:
    """A random, fair sample of the queries that count, spread over the whole query set.

    The rows that count are cut into `number` stretches of equal length and one row is drawn from each; tables are
    sorted by identity, so the sample shows many identities.

    Args:
      counted: bool [Q], False for queries that are skipped.
      number: how many to draw; all of them where there are fewer.
      seed: equal seeds draw equal rows.

    Returns:
      int [number], rows in ascending order.
    """
    rows = np.flatnonzero(counted)
    if len(rows) <= number:
        return rows
    edges = np.linspace(0, len(rows), number + 1).astype(int)
    return rows[np.random.default_rng(seed).integers(edges[:-1], edges[1:])]


def hardest_failures(outcomes: Outcomes, number: int, identity: np.ndarray | None = None) -> np.ndarray:
    """The queries that failed worst: first right match latest, then lowest average precision.

    Queries whose best-ranked match is right are no failures and never chosen.

    Args:
      found: outcomes of the queries.
      number: how many at most.
      identity: int [Q]; where given, the worst query of each identity comes before second ones, because the frames of
        one hard sequence tend to fail alike.

    Returns:
      int [<= number], rows, the worst first.
    """
    rows = np.flatnonzero(outcomes.first_hit > 1)
    order = rows[np.lexsort((outcomes.average_precision[rows], -outcomes.first_hit[rows]))]
    return _one_per_identity(order, identity)[:number]


def typical_successes(outcomes: Outcomes, number: int, identity: np.ndarray | None = None) -> np.ndarray:
    """Queries that went well in the ordinary way: best-ranked match right, average precision nearest to the median of
    those.

    Args:
      found: outcomes of the queries.
      number: how many at most.
      identity: int [Q]; where given, one query of each identity comes before second ones.

    Returns:
      int [<= number], rows, the most typical first.
    """
    rows = np.flatnonzero(outcomes.first_hit == 1)
    if not len(rows):
        return rows
    precision = outcomes.average_precision[rows]
    order = rows[np.argsort(np.abs(precision - np.median(precision)), kind="stable")]
    return _one_per_identity(order, identity)[:number]


def _one_per_identity(order: np.ndarray, identity: np.ndarray | None) -> np.ndarray:
    """The rows reordered so that each identity's first row comes before any identity's second row, and so on."""
    if identity is None or not len(order):
        return order
    of_row = np.asarray(identity)[order]
    repeats = np.array([np.count_nonzero(of_row[:i] == of_row[i]) for i in range(len(order))])
    return order[np.argsort(repeats, kind="stable")]


def skipped_sentence(outcomes: Outcomes) -> str:
    """Says in plain words how many queries were skipped and why; empty where none was.

    A query is skipped when no gallery sample of its identity is left: either the gallery never had one, or the
    protocol's rule removed them all (mostly: the person was seen by the query's camera alone).
    """
    count = int(np.count_nonzero(outcomes.skipped))
    if not count:
        return ""
    emptied = int(np.count_nonzero(outcomes.skipped & (outcomes.removed > 0)))
    ruled_out = (
        "the protocol's rule removed every gallery sample of their identity (an identity seen by a single camera has "
        "no match left once that camera is ruled out)"
    )
    absent = "the gallery holds no sample of their identity at all"
    if emptied in (0, count):
        why = f"because {ruled_out if emptied else absent}"
    else:
        why = f"{emptied} because {ruled_out}; {count - emptied} because {absent}"
    every = f"All {count}" if count == len(outcomes.first_hit) else f"{count} of {len(outcomes.first_hit)}"
    return f"{every} queries have no right match in the gallery and are left out of every score: {why}."
