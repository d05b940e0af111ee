"""Re-ranking against the definition with whole matrices, and its memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import distances, rerank


def drawn(queries=15, gallery=60, people=9, spread=0.8, width=16, dtype=np.float64):
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(people, width))
    features = centres[rng.integers(0, people, queries + gallery)]
    features = distances.l2_normalise(features + spread * rng.normal(size=features.shape)).astype(dtype)
    return features[:queries], features[queries:]


def by_definition(query, gallery, k1, k2, lambda_value, distance="euclidean"):
    """Section 3 of the paper with sets and whole matrices; averages and expansion as in the authors' code."""
    samples = np.concatenate([query, gallery])
    apart = np.square(samples[:, None] - samples[None]).sum(-1)
    if distance == "squared_euclidean":
        apart = apart**2
    if distance == "cosine":
        lengths = np.linalg.norm(samples, axis=1)
        apart = (1 - samples @ samples.T / np.outer(lengths, lengths)) ** 2
    apart /= apart.max(axis=1, keepdims=True)
    order = np.argsort(apart, axis=1, kind="stable")

    def reciprocal(sample, k):
        return {near for near in order[sample, : k + 1] if sample in order[near, : k + 1]}

    weights = np.zeros_like(apart)
    for sample in range(len(samples)):
        own = reciprocal(sample, k1)
        extended = set(own)
        for near in own:
            theirs = reciprocal(near, int(np.around(k1 / 2)))
            if len(theirs & own) > 2 / 3 * len(theirs):
                extended |= theirs
        members = sorted(extended)
        weights[sample, members] = np.exp(-apart[sample, members])
        weights[sample] /= weights[sample].sum()
    weights = np.stack([weights[order[sample, :k2]].mean(axis=0) for sample in range(len(samples))])
    shared = np.minimum(weights[: len(query), None], weights[None, len(query) :]).sum(-1)
    joined = np.maximum(weights[: len(query), None], weights[None, len(query) :]).sum(-1)
    return lambda_value * apart[: len(query), len(query) :] + (1 - lambda_value) * (1 - shared / joined)


@pytest.mark.parametrize(
    ("k1", "k2", "lambda_value"), [(10, 4, 0.3), (7, 1, 0.0), (20, 6, 0.8), (1, 2, 0.3), (74, 3, 0.5)]
)
def test_matches_the_definition(k1, k2, lambda_value, x64):
    query, gallery = drawn()
    found = rerank.k_reciprocal(query, gallery, k1, k2, lambda_value, block=16, precision=np.float64)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_definition(query, gallery, k1, k2, lambda_value), atol=1e-6)


@pytest.mark.parametrize("distance", ["squared_euclidean", "cosine"])
def test_other_distances_match_the_definition(distance, x64):
    query, gallery = (side * np.linspace(0.5, 2.0, len(side))[:, None] for side in drawn())
    found = rerank.k_reciprocal(query, gallery, 10, 4, 0.3, distance, block=16, precision=np.float64)
    np.testing.assert_allclose(found, by_definition(query, gallery, 10, 4, 0.3, distance), atol=1e-6)


def test_options_describe_themselves():
    assert rerank.RerankOptions(20, 6).describe() == "re-ranked (k1=20, k2=6, lambda=0.3)"
    said = rerank.RerankOptions(distance="squared_euclidean").describe()
    assert said == "re-ranked (k1=50, k2=15, lambda=0.3, of squared euclidean distances)"


def test_weight_one_is_the_distance_itself():
    query, gallery = drawn(dtype=np.float32)
    apart = distances.squared_euclidean(query, np.concatenate([query, gallery]))
    expected = apart[:, len(query) :] / apart.max(axis=1, keepdims=True)
    np.testing.assert_allclose(rerank.k_reciprocal(query, gallery, 10, 4, 1.0), expected, atol=1e-6)


@pytest.mark.parametrize(("queries", "gallery", "k1", "k2"), [(50, 900, 50, 15), (300, 700, 20, 6)])
def test_memory_stays_within_the_estimate(queries, gallery, k1, k2):
    query, rest = drawn(queries, gallery, people=40, dtype=np.float32)
    rerank.k_reciprocal(query[:9], rest[:90], 5, 2)  # imports and compilation are not counted
    tracemalloc.start()
    rerank.k_reciprocal(query, rest, k1, k2, block=128)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < rerank.memory_estimate(queries, gallery, k1, k2, block=128)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((75, 4), "more than 75 samples"),
        ((0, 4), "k1, k2 >= 1"),
        ((5, 4, 2.0), "lambda"),
        ((5, 4, 0.3, "manhattan"), "unknown distance of the re-ranking 'manhattan'"),
    ],
)
def test_parameters_that_make_no_sense(options, said):
    with pytest.raises(UserError, match=said):
        rerank.k_reciprocal(*drawn(), *options)
