"""Searches for somebody who may not be there: false alarms, and right people found, over a threshold on the distance.

Two rates of a threshold t, in the terms of ISO/IEC 19795-1 and of Phillips, Grother, Micheals (Handbook of Face
Recognition, 2011, chapter 21):

* FAR, the false-alarm (false-positive identification) rate: of searches for somebody absent, the share that finds
  anybody at t or below. Every query is such a search once its right matches are taken out of the gallery.
* DIR, the detection and identification rate at rank 1: of searches for somebody present, the share whose nearest
  gallery sample is right and at t or below. 1 - DIR are the misses (FRR, where the rank does not count).

Both hold for galleries of about the size that they were measured on. Queries of one identity are alike, so that
confidence intervals draw identities, not queries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.retrieval.protocols import Protocol, Table

DRAWS = 1000
"""Of identities, for an interval."""


@dataclasses.dataclass(frozen=True)
class Searches:
    """What queries find.

    Attributes:
      identity: int [Q], whom each query shows.
      right: float64 [Q], distance of the nearest right match; infinite where the gallery has none.
      wrong: float64 [Q], distance of the nearest wrong match; infinite where there is none.
    """

    identity: np.ndarray
    right: np.ndarray
    wrong: np.ndarray

    def select(self, rows: np.ndarray) -> Searches:
        """Some of them."""
        return Searches(self.identity[rows], self.right[rows], self.wrong[rows])


@dataclasses.dataclass(frozen=True)
class Rates:
    """Rates at a threshold.

    Attributes:
      threshold: largest distance that counts as the same.
      false_alarms: FAR.
      found: DIR at rank 1.
      missed: FRR: of searches for somebody present, the share without a right match at the threshold, at any rank.
    """

    threshold: float
    false_alarms: float
    found: float
    missed: float


def searches(distances: np.ndarray, query: Table, gallery: Table, protocol: Protocol) -> Searches:
    """The nearest right and wrong match of every query, of the pairs that a protocol compares.

    Args:
      distances: float [Q, G].
      query: labels of the rows.
      gallery: labels of the columns.
      protocol: says which pairs are left out.

    Raises:
      UserError: no query has a right match, or none a wrong one.
    """
    identity, others = np.asarray(query.identity), np.asarray(gallery.identity)
    right, wrong = np.full(len(identity), np.inf), np.full(len(identity), np.inf)
    for row, person in enumerate(identity):
        kept = ~protocol.ignored(query, gallery, row)
        for nearest, side in ((right, others == person), (wrong, others != person)):
            nearest[row] = np.min(distances[row], where=kept & side, initial=np.inf)
    for nearest, what in ((right, "right"), (wrong, "wrong")):
        if not np.isfinite(nearest).any():
            raise UserError(f"no query has a {what} match that the protocol lets count; take more images")
    return Searches(identity, right, wrong)


def threshold_at(found: Searches, false_alarms: float) -> float:
    """The largest distance at which a search finds something and at most the share `false_alarms` are false alarms.

    It is one of the distances of right and wrong matches; -inf where even the smallest would be too many.

    Raises:
      UserError: `false_alarms` is no share between 0 and 1.
    """
    if not 0 < false_alarms < 1:
        raise UserError(f"a false-alarm rate is {false_alarms}; it must lie between 0 and 1, as in 0.01")
    alarms = np.sort(found.wrong)
    allowed = int(np.floor(false_alarms * len(alarms) * (1 + 1e-12)))
    barrier = alarms[allowed]
    possible = np.concatenate([found.right, found.wrong])
    return float(np.max(possible[possible < barrier], initial=-np.inf))


def rates(found: Searches, threshold: float) -> Rates:
    """The rates at a threshold; NaN where no query has a right match."""
    present = np.isfinite(found.right)
    accepted = found.right[present] <= threshold
    # An impostor at the very same distance might come first.
    first = found.right[present] < found.wrong[present]
    count = int(present.sum()) or np.nan
    return Rates(
        threshold,
        float(np.mean(found.wrong <= threshold)),
        float((accepted & first).sum() / count),
        float((~accepted).sum() / count),
    )


def curve(found: Searches) -> np.ndarray:
    """float64 [T, 4]: threshold, FAR, DIR and FRR at every distance where one of them changes, ascending."""
    values = np.unique(np.concatenate([found.right, found.wrong]))
    values = values[np.isfinite(values)]
    present = np.isfinite(found.right)
    identified = np.sort(found.right[present & (found.right < found.wrong)])
    count = present.sum()

    def at_most(sample: np.ndarray) -> np.ndarray:
        return np.searchsorted(np.sort(sample), values, side="right")

    return np.stack(
        [
            values,
            at_most(found.wrong) / len(found.wrong),
            at_most(identified) / count,
            1 - at_most(found.right[present]) / count,
        ],
        axis=1,
    )


def interval(
    found: Searches, measured: Callable[[Searches], float], *, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a number, over identities drawn with replacement.

    Args:
      found: the searches.
      measured: gives the number of some searches; what is NaN of a draw does not count.
      level: of confidence.
      draws: number of draws.
      seed: of the draws.
    """
    people, of_person = np.unique(found.identity, return_inverse=True)
    rows = [np.flatnonzero(of_person == person) for person in range(len(people))]
    generator = np.random.default_rng(seed)
    values = [
        measured(found.select(np.concatenate([rows[i] for i in generator.integers(len(rows), size=len(rows))])))
        for _ in range(draws)
    ]
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
