"""Outcomes against a naive loop and by hand; the choice of queries."""

import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.visualize import selection


def naive_outcome(distances, query_identity, gallery_identity, ignored):
    """First hit and average precision of one query, in plain loops."""
    kept = [index for index in range(len(distances)) if not ignored[index]]
    kept.sort(key=lambda index: (distances[index], index))
    hits, precisions, first = 0, [], 0
    for rank, index in enumerate(kept, start=1):
        if gallery_identity[index] == query_identity:
            hits += 1
            first = first or rank
            precisions.append(hits / rank)
    return first, sum(precisions) / len(precisions) if precisions else float("nan")


def test_outcomes_by_hand(case):
    found = selection.outcomes(case.distances, case.query, case.gallery, case.ignore)
    # Query 0 loses gallery 0 (same camera), so its match gallery 3 is first.
    # Query 1 ranks 0, 3, 1, 5, 2, 4, so its matches stand at 3 and 6.
    np.testing.assert_array_equal(found.first_hit, [1, 3, 0, 0])
    np.testing.assert_allclose(found.average_precision, [1.0, (1 / 3 + 2 / 6) / 2, np.nan, np.nan])
    np.testing.assert_array_equal(found.right, [1, 2, 0, 0])
    np.testing.assert_array_equal(found.removed, [1, 0, 1, 0])
    np.testing.assert_array_equal(found.skipped, [False, False, True, True])


@pytest.mark.parametrize("seed", range(5))
def test_outcomes_match_naive_loop_with_ties(seed, case):
    rng = np.random.default_rng(seed)
    query = type(case.query)(rng.integers(0, 5, 20), np.zeros(20, int), np.array(["q"] * 20))
    gallery = type(case.query)(rng.integers(0, 6, 40), np.zeros(40, int), np.array(["g"] * 40))
    distances = rng.integers(0, 8, (20, 40)).astype(np.float32)
    ignore = rng.random((20, 40)) < 0.3
    found = selection.outcomes(distances, query, gallery, lambda row: ignore[row])
    for row in range(20):
        first, precision = naive_outcome(distances[row], query.identity[row], gallery.identity, ignore[row])
        assert found.first_hit[row] == first
        np.testing.assert_allclose(found.average_precision[row], precision)


def test_ignore_rule_may_be_an_array_or_a_function(case):
    array = selection.outcomes(case.distances, case.query, case.gallery, case.ignore)
    function = selection.outcomes(case.distances, case.query, case.gallery, lambda row: case.ignore[row])
    np.testing.assert_array_equal(array.first_hit, function.first_hit)


def test_wrong_shapes_are_refused(case):
    with pytest.raises(UserError, match=r"distances have shape \[3, 6\]"):
        selection.outcomes(case.distances[:3], case.query, case.gallery)
    with pytest.raises(UserError, match="ignore mask of query 0"):
        selection.outcomes(case.distances, case.query, case.gallery, lambda row: np.zeros(5, bool))


def test_spread_takes_one_query_of_each_stretch_and_never_a_skipped_one():
    counted = np.ones(103, bool)
    counted[10:40] = False
    chosen = selection.spread_of_queries(counted, 6, seed=3)
    rows = np.flatnonzero(counted)
    stretch = np.searchsorted(np.linspace(0, len(rows), 7).astype(int), np.searchsorted(rows, chosen), side="right")
    np.testing.assert_array_equal(stretch, [1, 2, 3, 4, 5, 6])
    assert counted[chosen].all()
    np.testing.assert_array_equal(chosen, selection.spread_of_queries(counted, 6, seed=3))
    assert not np.array_equal(chosen, selection.spread_of_queries(counted, 6, seed=4))
    np.testing.assert_array_equal(selection.spread_of_queries(counted, 500), rows)


def outcomes_of(first_hit, precision):
    zeros = np.zeros(len(first_hit), int)
    return selection.Outcomes(np.array(first_hit), np.array(precision), zeros, zeros)


def test_hardest_failures_by_first_hit_then_precision():
    found = outcomes_of([1, 9, 0, 4, 9, 2], [1.0, 0.2, np.nan, 0.1, 0.05, 0.4])
    np.testing.assert_array_equal(selection.hardest_failures(found, 3), [4, 1, 3])
    np.testing.assert_array_equal(selection.hardest_failures(found, 99), [4, 1, 3, 5])


def test_hardest_failures_show_each_identity_before_repeating_one():
    found = outcomes_of([9, 8, 7, 6], [0.1, 0.1, 0.1, 0.1])
    np.testing.assert_array_equal(selection.hardest_failures(found, 3, np.array([1, 1, 1, 2])), [0, 3, 1])


def test_typical_successes_are_nearest_to_the_median():
    # Of the queries that succeed the median is 0.6; the failed query with exactly that value is not chosen.
    found = outcomes_of([1, 1, 1, 1, 1, 3, 0], [1.0, 0.72, 0.6, 0.1, 0.55, 0.6, np.nan])
    np.testing.assert_array_equal(selection.typical_successes(found, 3), [2, 4, 1])
    assert not len(selection.typical_successes(outcomes_of([3, 0], [0.1, np.nan]), 2))


def test_skipped_sentence_counts_both_reasons(case):
    found = selection.outcomes(case.distances, case.query, case.gallery, case.ignore)
    text = selection.skipped_sentence(found)
    assert text.startswith("2 of 4 queries have no right match")
    assert "1 because the protocol's rule removed" in text
    assert "1 because the gallery holds no sample of their identity" in text
    assert selection.skipped_sentence(outcomes_of([1, 2], [1.0, 0.5])) == ""
    assert selection.skipped_sentence(outcomes_of([0, 0], [np.nan, np.nan])).startswith("All 2 queries")
