"""The softened divergence against its definition, and which side gets the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.losses.distillation import softened_divergence


def softmax(x):
    shares = np.exp(x - x.max())
    return shares / shares.sum()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_it_is_the_divergence_of_softened_predictions(temperature, x64):
    rng = np.random.default_rng(0)
    logits, teacher = rng.standard_normal((2, 5, 7)) * 4
    expected = 0.0
    for own, other in zip(logits, teacher, strict=True):
        target = softmax(other / temperature) + 1e-7
        expected += np.sum(target * (np.log(target) - np.log(softmax(own / temperature)))) / len(logits)
    actual = softened_divergence(jnp.asarray(logits), jnp.asarray(teacher), temperature)
    np.testing.assert_allclose(actual, temperature**2 * expected, rtol=1e-10)


def test_the_teacher_learns_nothing():
    rng = np.random.default_rng(1)
    logits, teacher = (jnp.asarray(x, jnp.float32) for x in rng.standard_normal((2, 3, 4)))
    own, other = jax.grad(softened_divergence, (0, 1))(logits, teacher)
    assert np.abs(own).max() > 0
    assert not np.asarray(other).any()


def test_equal_predictions_have_no_divergence(x64):
    logits = jnp.asarray(np.random.default_rng(2).standard_normal((3, 4)))
    assert abs(float(softened_divergence(logits, logits))) < 1e-4
