"""Centre-guided pairs against loops over identities, and the orthogonality of copies."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.losses import expansion


def naive(features, labels, margin=0.2):
    """Identity by identity: features [4, B, D] of visible, infrared, and their expanded rows."""
    people = sorted(set(labels.tolist()))
    v, r, expanded_v, expanded_r = (
        np.array([rows[labels == person].mean(axis=0) for person in people]) for rows in features
    )

    def half(own, other, expanded):
        total = 0.0
        for i in range(len(people)):
            near = np.linalg.norm(other[i] - expanded[i])
            total += max(0.0, near - np.linalg.norm(own[i] - expanded[i]) + margin)
            for rows in (expanded, own):
                apart = [np.linalg.norm(rows[i] - rows[j]) for j in range(len(people)) if j != i]
                total += 0.5 * max(0.0, near - min(apart, default=np.inf) + margin)
        return total / len(people)

    return (half(v, r, expanded_v) + half(r, v, expanded_r)) / 2


def draw(seed, labels, scale=1.0):
    return scale * np.random.default_rng(seed).normal(size=(4, len(labels), 5))


@pytest.mark.parametrize(
    "labels",
    [[3, 3, 1, 1, 7, 7], [1, 3, 7, 3, 1, 7], [5, 2, 2, 5, 2, 9], [4, 1, 2, 3, 0, 6]],
    ids=["sorted", "interleaved", "unequal", "one each"],
)
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
def test_any_order_and_number_of_images(labels, scale, x64):
    """The authors' code cuts the batch into chunks of equal size instead, whatever the labels are."""
    labels = np.array(labels)
    features = draw(1, labels, scale)
    found = expansion.center_guided_pairs(*features, jnp.asarray(labels))
    np.testing.assert_allclose(found, naive(features, labels), rtol=1e-12)


@pytest.mark.slow(short=True)
def test_cut_by_position_is_the_same_on_sorted_batches(x64):
    labels = np.repeat([8, 2, 5], 4)
    features = draw(2, labels)
    by_label = expansion.center_guided_pairs(*features, jnp.asarray(labels))
    by_position = expansion.center_guided_pairs(*features, grouping="positional", num_identities=3)
    np.testing.assert_allclose(by_position, by_label, rtol=1e-14)
    mixed = expansion.center_guided_pairs(*features, grouping="positional", num_identities=4)
    np.testing.assert_allclose(mixed, naive(features, np.repeat(np.arange(4), 3)), rtol=1e-12)


@pytest.mark.slow(short=True)
def test_one_identity_has_no_others(x64):
    labels = np.zeros(4, int)
    features = draw(3, labels)
    loss, slope = jax.value_and_grad(lambda f: expansion.center_guided_pairs(*f, jnp.asarray(labels)))(features)
    np.testing.assert_allclose(loss, naive(features, labels), rtol=1e-12)
    assert np.isfinite(slope).all()


def test_finite_where_all_is_one_point():
    """Distances of 0, whose root has no gradient."""
    labels = jnp.asarray([0, 0, 1, 1])
    slope = jax.grad(lambda f: expansion.center_guided_pairs(*f, labels))(jnp.ones((4, 4, 3)))
    assert np.isfinite(slope).all()


@pytest.mark.slow(short=True)
def test_no_gradient_through_the_distance_to_the_own_modality(x64):
    """With distances to the others too large to matter, visible centres move for the second half alone."""
    labels, features = jnp.arange(2), draw(4, np.arange(2), 0.01)
    features[:, 1] += 100.0
    slope = jax.grad(lambda f: expansion.center_guided_pairs(*f, labels))(jnp.asarray(features))
    v, _, _, expanded_r = features
    towards = (v - expanded_r) / np.linalg.norm(v - expanded_r, axis=1, keepdims=True) / 4
    np.testing.assert_allclose(slope[0], towards, rtol=1e-9)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UserError, match="four arrays"):
        expansion.center_guided_pairs(*[jnp.ones((4, 3))] * 3, jnp.ones((2, 3)), jnp.zeros(4, int))
    with pytest.raises(UserError, match="chunks"):
        expansion.center_guided_pairs(*[jnp.ones((5, 3))] * 4, grouping="positional", num_identities=4)


def test_orthogonality(x64):
    second, third = np.random.default_rng(0).normal(size=(2, 6, 4))
    expected = sum(float(a @ b) for a, b in zip(second, third, strict=True)) / 18
    np.testing.assert_allclose(expansion.copy_orthogonality(second, third), expected, rtol=1e-12)
    assert expansion.copy_orthogonality(jnp.eye(3), jnp.roll(jnp.eye(3), 1, axis=1)) == 0
