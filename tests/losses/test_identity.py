"""Cross-entropy and the classifier heads with a margin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.losses import identity

HEADS = {"arcface": identity.arcface_logits, "cosface": identity.cosface_logits, "circle": identity.circle_logits}


@pytest.fixture
def batch(x64):
    rng = np.random.default_rng(3)
    features, weight = rng.standard_normal((6, 5)), rng.standard_normal((5, 4))
    return jnp.asarray(features), jnp.asarray(weight), jnp.asarray([0, 3, 1, 1, 2, 0])


def test_cross_entropy_by_hand(x64):
    logits = jnp.log(jnp.asarray([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]]))
    labels = jnp.asarray([0, 2])
    np.testing.assert_allclose(identity.cross_entropy(logits, labels), -(np.log(0.7) + np.log(0.25)) / 2, rtol=1e-14)
    # Targets of smoothing 0.3 over 3 classes: 0.8 on the class, 0.1 on the others.
    first = 0.8 * np.log(0.7) + 0.1 * np.log(0.2) + 0.1 * np.log(0.1)
    second = 0.1 * np.log(0.5) + 0.1 * np.log(0.25) + 0.8 * np.log(0.25)
    np.testing.assert_allclose(identity.cross_entropy(logits, labels, 0.3), -(first + second) / 2, rtol=1e-14)


def test_soft_targets_of_smoothing_are_the_same(x64):
    logits = jnp.asarray(np.random.default_rng(0).standard_normal((7, 9)) * 3)
    labels = jnp.arange(7)
    targets = 0.9 * jax.nn.one_hot(labels, 9, dtype=logits.dtype) + 0.1 / 9
    soft = -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1))
    np.testing.assert_allclose(soft, identity.cross_entropy(logits, labels, 0.1), rtol=1e-13)


def test_many_classifiers_are_one_after_the_other(x64):
    logits = jnp.asarray(np.random.default_rng(1).standard_normal((2, 3, 5, 4)))
    labels = jnp.asarray([3, 0, 1, 1, 2])
    loss, right = identity.cross_entropy(logits, labels, 0.1), identity.accuracy(logits, labels)
    assert loss.shape == right.shape == (2, 3)
    for a, b in np.ndindex(2, 3):
        np.testing.assert_allclose(loss[a, b], identity.cross_entropy(logits[a, b], labels, 0.1), rtol=1e-14)
        np.testing.assert_allclose(right[a, b], np.mean(np.argmax(logits[a, b], axis=1) == np.asarray(labels)))


def test_cross_entropy_stays_finite_for_large_logits_and_half_precision():
    logits = jnp.asarray([[3e4, -3e4], [-3e4, 3e4]], jnp.bfloat16)
    loss = identity.cross_entropy(logits, jnp.asarray([0, 0]))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, 3e4, rtol=1e-2)


def test_a_label_that_is_no_class_is_not_silent():
    assert np.isnan(jax.jit(identity.cross_entropy)(jnp.zeros((2, 3)), jnp.asarray([0, 3])))


def angles(features, weight):
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    weight = weight / np.linalg.norm(weight, axis=0, keepdims=True)
    return np.arccos(features @ weight)


@pytest.mark.parametrize("margin", [0.1, 0.5, 1.2])
def test_arcface_adds_an_angle(batch, margin):
    features, weight, labels = batch
    theta = angles(np.asarray(features), np.asarray(weight))
    expected = 30 * np.cos(theta)
    for i, label in enumerate(np.asarray(labels)):
        angle = theta[i, label]
        beyond = angle + margin > np.pi
        expected[i, label] = 30 * (np.cos(angle) - margin * np.sin(margin) if beyond else np.cos(angle + margin))
    np.testing.assert_allclose(identity.arcface_logits(features, weight, labels, 30.0, margin), expected, rtol=1e-10)


def test_cosface_subtracts_from_the_cosine(batch):
    features, weight, labels = batch
    expected = np.cos(angles(np.asarray(features), np.asarray(weight)))
    expected[np.arange(6), labels] -= 0.35
    np.testing.assert_allclose(identity.cosface_logits(features, weight, labels, 16.0, 0.35), 16 * expected, rtol=1e-10)


def test_circle_weighs_by_distance_from_the_optimum(batch):
    features, weight, labels = batch
    cosine = np.cos(angles(np.asarray(features), np.asarray(weight)))
    expected = np.maximum(cosine + 0.25, 0) * (cosine - 0.25)
    for i, label in enumerate(np.asarray(labels)):
        expected[i, label] = max(1.25 - cosine[i, label], 0) * (cosine[i, label] - 0.75)
    np.testing.assert_allclose(identity.circle_logits(features, weight, labels), 256 * expected, rtol=1e-9, atol=1e-12)


def test_no_gradient_through_the_weights_of_circle(x64):
    # Unit features in a plane, class vectors on the axes: the cosine of class 0 is the first coordinate itself.
    weight, labels = jnp.eye(2), jnp.asarray([0])

    def logit(angle):
        return identity.circle_logits(jnp.asarray([[jnp.cos(angle), jnp.sin(angle)]]), weight, labels)[0, 0]

    expected = 256 * (1.25 - np.cos(0.4)) * -np.sin(0.4)
    np.testing.assert_allclose(jax.jit(jax.grad(logit))(0.4), expected, rtol=1e-12)


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_heads_are_finite_on_a_class_vector_and_at_zero(head, batch):
    _, weight, labels = batch
    features = jnp.stack([weight[:, 0], -weight[:, 3], 5 * weight[:, 1], jnp.zeros(5), weight[:, 2], weight[:, 1]])

    def loss(features, weight):
        return identity.cross_entropy(head(features, weight, labels), labels)

    for gradient in jax.jit(jax.grad(loss, argnums=(0, 1)))(features, weight):
        assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_jit_equals_eager_and_length_does_not_matter(head, batch):
    features, weight, labels = batch
    expected = head(features, weight, labels)
    np.testing.assert_allclose(jax.jit(head)(features, weight, labels), expected, rtol=1e-12)
    np.testing.assert_allclose(head(7 * features, 0.1 * weight, labels), expected, rtol=1e-9, atol=1e-12)
