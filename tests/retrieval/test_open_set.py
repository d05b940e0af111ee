"""Searches for somebody who may not be there: known values, slow loops, scikit-learn's curve."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import metrics, open_set, protocols

PLAIN = protocols.GENERAL["plain"]


def labels(identity, camera=None):
    zeros = np.zeros(len(identity), int)
    return metrics.Labels(np.array(identity), zeros if camera is None else np.array(camera), zeros)


def random_searches(seed=0, queries=60, gallery=40, people=9):
    generator = np.random.default_rng(seed)
    query, pool = (
        labels(generator.integers(people, size=n), generator.integers(3, size=n)) for n in (queries, gallery)
    )
    distances = generator.random((queries, gallery)) + (query.identity[:, None] != pool.identity[None]) * 0.4
    return distances, query, pool


def test_known_values():
    distances = np.array([[0.1, 0.5, 0.9], [0.6, 0.2, 0.3], [0.7, 0.8, 0.4]])
    found = open_set.searches(distances, labels([1, 1, 9]), labels([1, 2, 1]), PLAIN)
    np.testing.assert_allclose(found.right, [0.1, 0.3, np.inf])
    np.testing.assert_allclose(found.wrong, [0.5, 0.2, 0.4])
    # The second query's nearest sample is wrong, and the third query shows somebody absent.
    at = open_set.rates(found, 0.3)
    assert dataclasses.astuple(at) == pytest.approx((0.3, 1 / 3, 0.5, 0.0))
    assert dataclasses.astuple(open_set.rates(found, 0.1)) == pytest.approx((0.1, 0.0, 0.5, 0.5))
    assert open_set.threshold_at(found, 0.01) == 0.1
    assert open_set.threshold_at(found, 0.34) == 0.3
    assert open_set.threshold_at(found, 0.99) == 0.4


def test_no_threshold_is_low_enough_where_a_wrong_match_is_the_nearest_of_all():
    found = open_set.searches(np.array([[0.5, 0.2]]), labels([1]), labels([1, 2]), PLAIN)
    assert open_set.threshold_at(found, 0.5) == -np.inf
    assert open_set.rates(found, -np.inf).false_alarms == 0


@pytest.mark.parametrize("name", ["plain", "rgbnt"])
def test_against_a_slow_loop(name):
    protocol = protocols.GENERAL[name]
    distances, query, gallery = random_searches()
    found = open_set.searches(distances, query, gallery, protocol)
    for threshold in (0.05, 0.3, 0.6):
        alarms = hits = misses = present = 0
        for row in range(len(distances)):
            pairs = sorted(
                (distances[row, column], gallery.identity[column] == query.identity[row])
                for column in np.flatnonzero(~protocol.ignored(query, gallery, row))
            )
            alarms += any(value <= threshold and not same for value, same in pairs)
            if any(same for _, same in pairs):
                present += 1
                hits += pairs[0][1] and pairs[0][0] <= threshold
                misses += not any(value <= threshold and same for value, same in pairs)
        at = open_set.rates(found, threshold)
        assert (at.false_alarms, at.found, at.missed) == pytest.approx(
            (alarms / len(distances), hits / present, misses / present)
        )


@pytest.mark.parametrize("wanted", [0.01, 0.1, 0.3, 0.7])
def test_the_threshold_is_the_largest_that_keeps_the_rate(wanted):
    found = open_set.searches(*random_searches(1), PLAIN)
    threshold = open_set.threshold_at(found, wanted)
    assert open_set.rates(found, threshold).false_alarms <= wanted
    larger = min(value for value in np.concatenate([found.right, found.wrong]) if value > threshold)
    assert open_set.rates(found, larger).false_alarms > wanted


def test_the_curve_is_the_rates_at_every_distance_and_never_turns():
    found = open_set.searches(*random_searches(2), PLAIN)
    curve = open_set.curve(found)
    for row in curve[::7]:
        assert dataclasses.astuple(open_set.rates(found, row[0])) == pytest.approx(tuple(row))
    assert (np.diff(curve[:, :3], axis=0) >= 0).all()
    assert (np.diff(curve[:, 3]) <= 0).all()


def test_false_alarms_and_misses_are_those_of_scikit_learn():
    """Of searches with a right match taken as positives and their wrong matches as negatives, by distance."""
    roc_curve = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed").roc_curve
    found = open_set.searches(*random_searches(3), PLAIN)
    present = found.right[np.isfinite(found.right)]
    truth = np.repeat([1, 0], [len(present), len(found.wrong)])
    alarms, hits, scores = roc_curve(truth, -np.concatenate([present, found.wrong]), drop_intermediate=False)
    for alarm, hit, score in zip(alarms[1:], hits[1:], scores[1:], strict=True):
        at = open_set.rates(found, -score)
        assert (at.false_alarms, at.missed) == pytest.approx((alarm, 1 - hit))


def test_intervals_draw_identities():
    """Many queries of few people say no more than one of each; and the interval of a fixed number is that number."""
    found = open_set.searches(*random_searches(4), PLAIN)
    far = lambda some: open_set.rates(some, 0.5).false_alarms  # noqa: E731
    low, high = open_set.interval(found, far, draws=200)
    assert low <= far(found) <= high
    assert open_set.interval(found, far, draws=200) == (low, high)
    many = found.select(np.tile(np.arange(len(found.identity)), 5))
    assert open_set.interval(many, far, draws=200) == pytest.approx((low, high))
    assert open_set.interval(found, lambda some: 0.25, draws=10) == (0.25, 0.25)


def test_intervals_cover_as_often_as_they_say():
    """Of 60 samples of 40 identities, each found with probability 0.7, nearly all intervals hold 0.7."""
    generator, covered = np.random.default_rng(0), 0
    for _ in range(60):
        hit = generator.random(40) < 0.7
        found = open_set.Searches(np.arange(40), np.where(hit, 0.1, 0.9), np.full(40, 1.0))
        low, high = open_set.interval(found, lambda some: open_set.rates(some, 0.5).found, draws=200)
        covered += low <= 0.7 <= high
    assert covered >= 50


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(UserError, match="right match"):
        open_set.searches(np.ones((1, 1)), labels([1]), labels([2]), PLAIN)
    with pytest.raises(UserError, match="wrong match"):
        open_set.searches(np.ones((1, 1)), labels([1]), labels([1]), PLAIN)
    found = open_set.searches(*random_searches(), PLAIN)
    with pytest.raises(UserError, match="between 0 and 1"):
        open_set.threshold_at(found, 0.0)
