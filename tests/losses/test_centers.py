"""Centre loss and hetero-center loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.losses import margins
from mmreid_jax.losses.centers import center_loss, hetero_center, hetero_center_loss


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


def by_loops(features, labels, distance, margin):
    """Identity by identity and pair by pair, in numpy."""
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    total = 0.0
    for identity in set(labels.tolist()):
        means = [modality[labels == identity].mean(axis=0) for modality in unit]
        for a in range(len(means)):
            for b in range(a + 1, len(means)):
                apart = {
                    "l2": np.sum((means[a] - means[b]) ** 2),
                    "l1": np.mean(np.abs(means[a] - means[b])),
                    "cos": 1 - means[a] @ means[b] / np.linalg.norm(means[a]) / np.linalg.norm(means[b]),
                }[distance]
                total += max(0.0, apart - margin)
    return total


@pytest.mark.parametrize("margin", [0.0, 0.05])
@pytest.mark.parametrize("distance", ["l2", "l1", "cos"])
@pytest.mark.parametrize("modalities", [2, 3])
def test_hetero_center_against_loops(x64, modalities, distance, margin):
    features = np.random.default_rng(3).normal(size=(modalities, 9, 5)) + 1.0
    labels = np.array([4, 1, 4, 4, 1, 7, 7, 4, 1])  # in no order, of unequal number
    loss = hetero_center_loss(features, jnp.asarray(labels), distance=distance, margin=margin)
    np.testing.assert_allclose(loss, by_loops(features, labels, distance, margin), rtol=1e-12)


def test_hetero_center_is_zero_where_modalities_agree(x64):
    one = np.random.default_rng(0).normal(size=(4, 6))
    loss, gradient = jax.value_and_grad(hetero_center_loss)(jnp.stack([one, 3.0 * one, one]), jnp.asarray([0, 0, 1, 1]))
    np.testing.assert_allclose(loss, 0.0, atol=1e-30)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-14)


def test_hetero_center_refuses_what_makes_no_sense():
    features = np.ones((3, 4, 2), np.float32)
    with pytest.raises(UserError, match="unknown distance 'l3'"):
        hetero_center_loss(features, jnp.zeros(4, int), distance="l3")
    with pytest.raises(UserError, match="two or more modalities"):
        hetero_center_loss(features[:1], jnp.zeros(4, int))
    with pytest.raises(UserError, match="needs num_identities"):
        hetero_center_loss(features, grouping="positional")


def test_features_of_any_length_are_compared_as_they_are(x64):
    """The part of the loss after the normalisation, for methods that normalise once for all their losses."""
    features = np.random.default_rng(1).normal(size=(2, 6, 5))
    labels = np.array([2, 0, 2, 0, 5, 5])
    groups = margins.groups_by_label(jnp.asarray(labels))
    wanted = sum(np.sum(np.subtract(*features[:, labels == u].mean(1)) ** 2) for u in (0, 2, 5))
    np.testing.assert_allclose(hetero_center(jnp.asarray(features), groups), wanted, rtol=1e-12)
