"""Weighted triplet losses against loops over samples, and where the released form and the equation part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.losses import weighted_triplet as losses

BATCHES = {
    "sorted": [0, 0, 1, 1, 2, 2, 2],
    "unsorted": [2, 0, 1, 0, 2, 1, 0],
    "unequal": [5, 7, 5, 5, 7, 9, 5],
    "one identity": [1, 1, 1],
}


def distance(a, b):
    return max(np.sqrt(np.sum((a - b) ** 2)), 1e-6)


def softmax_mean(values, weights, added):
    """Sum of values by a softmax with something added to its denominator."""
    shares = np.exp(np.asarray(weights))
    return float(np.sum(shares / (shares.sum() + added) * values)) if len(values) else 0.0


def naive(features, labels, alpha, form):
    """(fp, cn) by loops."""
    found = []
    for i, anchor in enumerate(features):
        near = np.array([distance(anchor, x) for x, label in zip(features, labels, strict=True) if label == labels[i]])
        far = np.array([distance(anchor, x) for x, label in zip(features, labels, strict=True) if label != labels[i]])
        added = 1e-6 if form == "code" else 0.0
        found.append((softmax_mean(near, alpha * (near - near.max()), added), softmax_mean(far, -alpha * far, added)))
    return np.array(found).T


@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("form", losses.FORMS)
@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_weighted_distances_match_a_naive_loop(labels, form, alpha, x64):
    features = np.random.default_rng(len(labels)).standard_normal((len(labels), 8))
    expected = naive(features, labels, alpha, form)
    actual = losses.weighted_distances(jnp.asarray(features), jnp.asarray(labels), alpha=alpha, form=form)
    # alpha times the largest distance is shifted away, which changes what 1e-6 adds.
    np.testing.assert_allclose(np.stack(actual), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", losses.FORMS)
def test_losses_are_those_of_their_distances(form, x64):
    rng = np.random.default_rng(0)
    features, labels = jnp.asarray(rng.standard_normal((8, 4))), jnp.asarray([0, 1, 2, 0, 1, 2, 0, 1])
    fp, cn = (np.asarray(x) for x in losses.weighted_distances(features, labels, form=form))
    weighted, (positive, negative) = losses.weighted_triplet(features, labels, form=form)
    np.testing.assert_array_equal(positive, fp)
    np.testing.assert_array_equal(negative, cn)
    np.testing.assert_allclose(weighted, np.log1p(np.exp(fp - cn)).mean(), rtol=1e-12)
    squared, _ = losses.squared_difference_triplet(features, labels, gamma=2.0, form=form)
    sign = np.where(fp > cn, 1.0, -1.0)
    np.testing.assert_allclose(squared, np.log1p(np.exp(sign * 2 * (fp - cn) ** 2)).mean(), rtol=1e-12)
    plain, _ = losses.squared_difference_triplet(features, labels, gamma=2.0, square=False, form=form)
    np.testing.assert_allclose(plain, np.log1p(np.exp(2 * (fp - cn))).mean(), rtol=1e-12)


def test_far_negatives_lose_their_weight_in_the_released_form_alone(x64):
    """Two tight identities 30 apart are well separated, which the released form does not see."""
    features = jnp.asarray([[0.0, 0.0], [0.0, 0.1], [30.0, 0.0], [30.0, 0.1]])
    labels = jnp.asarray([0, 0, 1, 1])
    found = {form: losses.weighted_triplet(features, labels, form=form) for form in losses.FORMS}
    np.testing.assert_allclose(found["softmax"][1][1], 30.0, rtol=1e-4)
    assert float(found["softmax"][0]) < 1e-12
    assert np.all(np.asarray(found["code"][1][1]) < 1e-3)
    assert float(found["code"][0]) > 0.5


def test_forms_agree_where_distances_are_small(x64):
    rng = np.random.default_rng(1)
    features, labels = jnp.asarray(0.3 * rng.standard_normal((12, 6))), jnp.asarray(np.tile(np.arange(4), 3))
    code, exact = (losses.weighted_triplet(features, labels, form=form)[0] for form in losses.FORMS)
    np.testing.assert_allclose(code, exact, rtol=1e-5)
    assert code != exact


@pytest.mark.parametrize("form", losses.FORMS)
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [0, 0, 1]])
def test_gradients_are_finite_where_samples_coincide_or_are_alone(form, labels):
    features = jnp.asarray([[1.0, 2.0], [1.0, 2.0], [400.0, -300.0]])
    for loss in (losses.weighted_triplet, losses.squared_difference_triplet):
        compute = lambda x, loss=loss: loss(x, jnp.asarray(labels), form=form)[0]  # noqa: E731
        value, gradient = jax.value_and_grad(compute)(features)
        assert np.isfinite(float(value))
        assert np.isfinite(np.asarray(gradient)).all()


def test_normalised_features_have_no_length(x64):
    rng = np.random.default_rng(2)
    features, labels = jnp.asarray(rng.standard_normal((6, 4))), jnp.asarray([0, 0, 1, 1, 2, 2])
    stretched = features * jnp.arange(1.0, 7.0)[:, None]
    one, other = (losses.weighted_triplet(x, labels, normalize=True)[0] for x in (features, stretched))
    np.testing.assert_allclose(one, other, rtol=1e-12)


def test_a_squared_difference_beyond_88_is_88():
    features = jnp.asarray([[0.0], [20.0], [0.5], [20.5]])
    loss, (positive, negative) = losses.squared_difference_triplet(features, jnp.asarray([0, 0, 1, 1]), form="softmax")
    assert np.all(np.square(np.asarray(positive - negative)) > 88)
    np.testing.assert_allclose(loss, 88.0, rtol=1e-6)


def test_half_precision_is_computed_in_float32():
    features = jnp.asarray(np.random.default_rng(3).standard_normal((4, 8)), jnp.bfloat16)
    assert losses.weighted_triplet(features, jnp.asarray([0, 0, 1, 1]))[0].dtype == jnp.float32


def test_an_unknown_form_is_refused():
    with pytest.raises(UserError, match="softmax"):
        losses.weighted_triplet(jnp.zeros((2, 2)), jnp.zeros(2, int), form="paper")
