"""Ranks by buckets against stable sorts, over distances of every kind that is hard on buckets."""

from __future__ import annotations

import numpy as np
import pytest

from mmreid_jax.retrieval.ranking import ColumnGroups, Ranking

KINDS = {
    "smooth": lambda rng, shape: rng.normal(size=shape),
    "ties": lambda rng, shape: rng.integers(0, 5, shape),
    "equal": lambda rng, shape: np.full(shape, 3.0),
    "signed zeros": lambda rng, shape: np.where(rng.random(shape) < 0.5, -0.0, 0.0),
    "far outliers": lambda rng, shape: rng.normal(size=shape) * 10.0 ** rng.integers(-30, 30, shape),
    "the whole range": lambda rng, shape: rng.choice([-3e38, -1.0, 0.0, 1e-38, 3e38], shape),
    "next to each other": lambda rng, shape: 1 + rng.integers(0, 9, shape) * np.finfo(np.float32).eps,
    "infinities": lambda rng, shape: rng.choice([-np.inf, 0.0, 1.0, np.inf], shape),
    "infinite alone": lambda rng, shape: np.full(shape, np.inf),
}


def asked(rng, shape, share=0.1):
    """Entries, row by row in any order within one, and other places that do not count."""
    drawn = rng.random(shape)
    drawn[shape[0] // 2] = 0.5  # nothing is asked of this row
    owner, column = np.nonzero(drawn < share)
    order = np.lexsort((rng.random(len(owner)), owner))
    return owner, column[order], np.nonzero(drawn > 0.8)


def ranks_by_sorting(values, owner, column, removed):
    """(column, closer) of every entry in the order of the ranks, by a stable argsort of what remains of each row."""
    found = []
    for row in range(len(values)):
        kept = np.ones(values.shape[1], bool)
        kept[removed[1][removed[0] == row]] = False
        order = np.flatnonzero(kept)
        order = order[np.argsort(values[row, order], kind="stable")]
        wanted = set(column[owner == row].tolist())
        found += [(place, rank) for rank, place in enumerate(order) if place in wanted]
    return np.array(found, int).reshape(-1, 2).T


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (7, 40), (3, 2000)])
def test_ranks_are_those_of_a_stable_sort(kind, dtype, shape):
    rng = np.random.default_rng(0)
    values = KINDS[kind](rng, shape).astype(dtype)
    before = values.copy()
    owner, column, removed = asked(rng, shape)
    ranking = Ranking(values, owner, column, [removed])
    expected = ranks_by_sorting(values, owner, column, removed)
    np.testing.assert_array_equal([ranking.column, ranking.closer], expected)
    np.testing.assert_array_equal(values, before)
    firsts = np.flatnonzero(np.diff(owner, prepend=-1))
    labels = rng.integers(0, 6, shape[1])
    counted = ranking.labels_before(firsts, labels, 6)
    for entry, count in zip(firsts, counted, strict=True):
        row, place = owner[entry], ranking.column[entry]
        kept = np.setdiff1d(np.arange(shape[1]), removed[1][removed[0] == row])
        order = kept[np.argsort(values[row, kept], kind="stable")]
        assert count == len(set(labels[order[: list(order).index(place)]]))


def test_more_samples_than_buckets():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 50_000)).astype(np.float32).round(3)
    owner, column, removed = asked(rng, values.shape, 0.01)
    ranking = Ranking(values, owner, column, [removed])
    np.testing.assert_array_equal([ranking.column, ranking.closer], ranks_by_sorting(values, owner, column, removed))


def test_nothing_asked_for():
    none = np.zeros(0, int)
    assert Ranking(np.ones((3, 4), np.float32), none, none).closer.shape == (0,)


def test_columns_by_label():
    groups = ColumnGroups.by(np.array([7, 3, 7, 9, 3, 7]))
    owner, column, counts = groups.columns(np.array([7, 5, 99, 3, 7, 1]))
    assert owner.tolist() == [0, 0, 0, 3, 3, 4, 4, 4]
    assert column.tolist() == [0, 2, 5, 1, 4, 0, 2, 5]
    assert counts.tolist() == [3, 0, 0, 2, 3, 0]
    assert groups.of.tolist() == [1, 0, 1, 2, 0, 1]
