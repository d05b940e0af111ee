"""Stripes of images and the heads that MMGL puts on them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.models import stripes

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(6, 12, 5, 3)), jnp.float32)


def test_every_stripe_stands_where_its_order_says():
    orders = np.array(list(itertools.permutations(range(3))))
    shuffled = np.asarray(jax.jit(stripes.shuffle)(IMAGES, jnp.asarray(orders)))
    for image, order, found in zip(np.asarray(IMAGES), orders, shuffled, strict=True):
        wanted = np.concatenate([image[4 * stripe : 4 * stripe + 4] for stripe in order])
        np.testing.assert_array_equal(found, wanted)


def test_the_inverse_order_restores_an_image():
    orders = np.array([np.random.default_rng(i).permutation(4) for i in range(6)])
    there = stripes.shuffle(IMAGES, jnp.asarray(orders))
    assert not np.array_equal(there, IMAGES)
    np.testing.assert_array_equal(stripes.shuffle(there, jnp.asarray(np.argsort(orders, axis=1))), IMAGES)


def test_stripes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="images of 12 rows cannot be cut into 5 stripes"):
        stripes.cut(IMAGES, 5)
    with pytest.raises(UserError, match="stripe_gap is 2, but stripes are 4 rows high; choose from 0 to 1"):
        stripes.without_borders(IMAGES, 3, 2)


def test_without_borders_a_stripe_knows_nothing_of_its_outermost_rows():
    changed = IMAGES.reshape(6, 2, 6, 5, 3).at[:, :, [0, -1]].set(7.0).reshape(IMAGES.shape)
    kept, other = (stripes.without_borders(x, 2, 1) for x in (IMAGES, changed))
    np.testing.assert_array_equal(kept, other)
    assert kept.shape == IMAGES.shape
    np.testing.assert_array_equal(stripes.without_borders(IMAGES, 2, 0), IMAGES)


@pytest.mark.parametrize("shared", [False, True])
def test_projections_are_linear_layers_with_batch_norm_of_each_position_or_of_all(shared):
    network = stripes.Projections(4, shared=shared)
    bands = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3, 8)), jnp.float32)
    variables = network.init(jax.random.key(0), bands, False)
    found, new = network.apply(variables, bands, True, mutable=["batch_stats"])
    params, stats = (tree["all" if shared else "each"] for tree in (variables["params"], new["batch_stats"]))
    for position in range(3):
        own = params if shared else jax.tree.map(lambda x, at=position: x[at], params)
        pixels = np.asarray(bands if shared else bands[:, position]).reshape(-1, 8)
        line = pixels @ np.asarray(own["conv"]["kernel"]) + np.asarray(own["conv"]["bias"])
        wanted = np.maximum((line - line.mean(0)) / np.sqrt(line.var(0) + 1e-5), 0)
        wanted = wanted.reshape(5, -1, 4)[:, position if shared else 0]
        np.testing.assert_allclose(found[:, position], wanted, atol=1e-5)
    assert stats["norm"]["mean"].shape == ((4,) if shared else (3, 4))


def test_a_plain_projection_has_no_batch_norm():
    bands = jnp.ones((2, 3, 8))
    variables = stripes.Projections(4, head="conv").init(jax.random.key(0), bands, False)
    assert set(variables) == {"params"}
    assert set(variables["params"]["each"]) == {"conv"}
