"""Batch-hard triplet loss against a loop over samples, and where the reference is not defined."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.losses.triplet import batch_hard_triplet

BATCHES = {
    "sorted": [0, 0, 1, 1, 2, 2, 2],
    "unsorted": [2, 0, 1, 0, 2, 1, 0],
    "unequal": [5, 7, 5, 5, 7, 9, 5],
    "alone": [3, 1, 2, 0, 4, 6, 5],
}

COMPILED = jax.jit(batch_hard_triplet, static_argnames=("margin", "normalize"))


def naive(features, labels, margin, hard_factor):
    terms = []
    for i in range(len(features)):
        distance = [max(np.sqrt(np.sum((features[i] - other) ** 2)), 1e-6) for other in features]
        farthest = max(d for d, label in zip(distance, labels, strict=True) if label == labels[i])
        nearest = min(d for d, label in zip(distance, labels, strict=True) if label != labels[i])
        excess = (1 + hard_factor) * farthest - (1 - hard_factor) * nearest
        terms.append(np.log1p(np.exp(excess)) if margin is None else max(0.0, excess + margin))
    return np.mean(terms)


@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize(("margin", "hard_factor"), [(None, 0.0), (0.3, 0.0), (None, 0.1)])
@pytest.mark.parametrize("normalize", [False, True])
def test_batch_hard_matches_naive_loop(labels, margin, hard_factor, normalize, x64):
    features = np.random.default_rng(len(labels)).standard_normal((len(labels), 8))
    compared = features / np.linalg.norm(features, axis=1, keepdims=True) if normalize else features
    expected = naive(compared, labels, margin, hard_factor)

    actual, _ = COMPILED(jnp.asarray(features), jnp.asarray(labels), margin, normalize, hard_factor)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_jit_equals_eager(x64):
    features, labels = jnp.asarray(np.random.default_rng(0).standard_normal((7, 8))), jnp.asarray(BATCHES["unequal"])
    np.testing.assert_allclose(COMPILED(features, labels)[0], batch_hard_triplet(features, labels)[0], rtol=1e-13)


def test_by_hand(x64):
    # On a line: 0 and 3 are one identity, 4 and 10 another.
    features = jnp.asarray([[0.0], [3.0], [4.0], [10.0]])
    loss, (positive, negative) = COMPILED(features, jnp.asarray([0, 0, 1, 1]), margin=1.0)
    np.testing.assert_allclose(positive, [3, 3, 6, 6])
    np.testing.assert_allclose(negative, [4, 1, 1, 7])
    assert loss == (0 + 3 + 6 + 0) / 4


def test_order_of_the_batch_does_not_matter(x64):
    rng = np.random.default_rng(0)
    features, labels, order = rng.standard_normal((12, 6)), np.repeat(np.arange(4), 3), rng.permutation(12)
    sorted_loss = COMPILED(jnp.asarray(features), jnp.asarray(labels))[0]
    shuffled_loss = COMPILED(jnp.asarray(features[order]), jnp.asarray(labels[order]))[0]
    np.testing.assert_allclose(shuffled_loss, sorted_loss, rtol=1e-13)


def test_one_identity_gives_zero_loss_and_gradient():
    features = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8)), jnp.float32)
    labels = jnp.zeros(4, jnp.int32)
    loss, gradient = jax.jit(jax.value_and_grad(lambda x: batch_hard_triplet(x, labels)[0]))(features)
    assert loss == 0
    assert not np.any(gradient)
    assert np.all(np.isfinite(jnp.stack(COMPILED(features, labels)[1])))


def test_first_of_equal_positives_receives_the_gradient(x64):
    # Samples 1 and 2 are equally far from sample 0 and coincide, as do the negatives 3 and 4.
    features = jnp.asarray([[0.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 5.0], [0.0, 5.0]])
    labels = jnp.asarray([0, 0, 0, 1, 1])
    positive, negative = jax.jit(jax.jacobian(lambda x: batch_hard_triplet(x, labels)[1]))(features)
    np.testing.assert_allclose(positive[0], [[-1, 0], [1, 0], [0, 0], [0, 0], [0, 0]])
    np.testing.assert_allclose(negative[0], [[0, -1], [0, 0], [0, 0], [0, 1], [0, 0]])


@pytest.mark.parametrize("margin", [None, 0.3])
def test_finite_on_copies_and_zeros(margin):
    features = jnp.zeros((6, 4)).at[2:4].set(1.0)
    gradient = jax.jit(jax.grad(lambda x: batch_hard_triplet(x, jnp.asarray([0, 0, 1, 1, 2, 2]), margin, True)[0]))(
        features
    )
    assert np.all(np.isfinite(gradient))


def test_half_precision_is_compared_in_float32():
    features = jnp.asarray(np.random.default_rng(0).standard_normal((8, 2048)) * 30, jnp.float16)
    labels = jnp.repeat(jnp.arange(4), 2)
    loss, _ = COMPILED(features, labels)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(
        loss, naive(np.asarray(features, np.float64), [0, 0, 1, 1, 2, 2, 3, 3], None, 0), rtol=1e-5
    )


@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
def test_sharing_ties_changes_neither_loss_nor_gradient_where_there_are_none(labels, x64):
    features = jnp.asarray(np.random.default_rng(len(labels)).standard_normal((len(labels), 8)))
    compute = jax.value_and_grad(lambda x, ties: batch_hard_triplet(x, jnp.asarray(labels), 0.3, share_ties=ties)[0])
    (one, first), (other, shared) = compute(features, False), compute(features, True)
    np.testing.assert_allclose(one, other, rtol=1e-12)
    np.testing.assert_allclose(first, shared, atol=1e-12)


@pytest.mark.slow(short=True)
def test_equally_hard_samples_share_the_gradient(x64):
    # The first sample has two copies of its nearest negative.
    features, labels = jnp.asarray([[0.0], [2.0], [2.0]]), jnp.asarray([0, 1, 1])
    of_first = lambda x, ties: batch_hard_triplet(x, labels, 5.0, share_ties=ties)[1][1][0]  # noqa: E731
    np.testing.assert_allclose(jax.grad(of_first)(features, True)[:, 0], [-1.0, 0.5, 0.5])
    np.testing.assert_allclose(jax.grad(of_first)(features, False)[:, 0], [-1.0, 1.0, 0.0])
