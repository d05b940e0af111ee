"""Scores of features in one call: those of distances and metrics, trial by trial."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mmreid_jax import datasets
from mmreid_jax.retrieval import distances, features, metrics, protocols, rerank


@pytest.fixture(scope="module")
def sides():
    """Queries of cameras 3 and 6, and a pool of four cameras with two images of everybody in each, as in SYSU-MM01."""
    rng = np.random.default_rng(1)
    people = rng.normal(size=(6, 5))
    identity = np.repeat(np.arange(6), 8)
    camera = np.tile(np.repeat([0, 1, 3, 4], 2), 6)
    file = np.array([f"cam{c + 1}/{p:04d}/{i:04d}.jpg" for i, (p, c) in enumerate(zip(identity, camera, strict=True))])
    pool = features.Filed(identity, camera, np.zeros_like(identity), file)
    asked = metrics.Labels(np.arange(12) % 6, np.where(np.arange(12) < 6, 2, 5))
    noisy = [
        (people[each.identity] + rng.normal(size=(len(each.identity), 5))).astype(np.float32) for each in (asked, pool)
    ]
    return *noisy, asked, pool


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("options", [None, rerank.RerankOptions(k1=4, k2=2)])
def test_every_trial_is_scored_by_itself(sides, swapped, options):
    query, gallery, asked, pool = sides
    protocol = dataclasses.replace(datasets.protocol("sysu_all_single"), swapped=swapped)
    trials, first = features.score(query, gallery, asked, pool, protocol, options)
    draws = protocol.galleries(pool)
    assert len(trials.scores) == len(draws) == 10
    unit, others = distances.l2_normalise(query), distances.l2_normalise(gallery)
    for number, rows in enumerate(draws):
        pairs = [(unit, asked), (others[rows], features.labels_of_rows(pool, rows))]
        (left, left_labels), (right, right_labels) = pairs[::-1] if swapped else pairs
        if options:
            expected = rerank.k_reciprocal(left, right, k1=4, k2=2)
        else:
            expected = distances.cosine(left, right)
        if number == 0:
            np.testing.assert_allclose(first, expected, atol=1e-6)
        scores = metrics.evaluate(expected, left_labels, right_labels, protocol)
        assert trials.scores[number].mAP == pytest.approx(scores.mAP)
        np.testing.assert_allclose(trials.scores[number].cmc, scores.cmc)


def test_labels_without_scenes_have_one(sides):
    asked = sides[2]
    assert asked.scene.tolist() == [0] * 12


def test_junk_is_neither_right_nor_wrong():
    query, gallery = np.eye(2), np.array([[1.0, 0], [0.9, 0.1], [0, 1]])
    asked = metrics.Labels(np.array([0, 1]), np.array([0, 0]))
    searched = metrics.Labels(np.array([-1, 0, 1]), np.array([1, 1, 1]))
    kept, labels = features.without_junk(gallery, searched, "gallery")
    assert kept.shape == (2, 2)
    assert labels.identity.tolist() == [0, 1]
    assert features.evaluate(query, gallery, asked, searched, protocols.MARKET).mAP == 1
