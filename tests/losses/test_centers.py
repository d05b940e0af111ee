"""Centre loss."""

import jax
import jax.numpy as jnp
import numpy as np

from mmreid_jax.losses.centers import center_loss


def test_by_hand(x64):
    features = jnp.asarray([[1.0, 2.0], [3.0, 0.0], [0.0, 0.0]])
    centers = jnp.asarray([[1.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(center_loss(features, jnp.asarray([0, 0, 1]), centers), (4 + 4 + 1e-12) / 3, rtol=1e-14)


def test_gradients_pull_feature_and_centre_together(x64):
    features, centers, labels = jnp.asarray([[1.0, 2.0], [3.0, 0.0]]), jnp.zeros((3, 2)), jnp.asarray([2, 2])
    of_features, of_centers = jax.jit(jax.grad(center_loss, argnums=(0, 2)))(features, labels, centers)
    np.testing.assert_allclose(of_features, features)
    np.testing.assert_allclose(of_centers, [[0, 0], [0, 0], [-4, -2]])


def test_finite_where_a_feature_is_its_centre():
    same = jnp.ones((2, 4))
    assert np.all(np.isfinite(jax.grad(center_loss)(same, jnp.asarray([0, 1]), same)))
