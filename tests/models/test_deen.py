"""DEEN's attention and expansion against loops over channels and positions, and the shapes of its network."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.models import deen
from mmreid_jax.models.resnet import RESNETS


def rows_of(maps):
    """The authors' view of [M, C]: 2 C rows of M/2, in the order of channels."""
    return maps.T.reshape(2 * maps.shape[1], -1)


@pytest.mark.parametrize(("high", "low"), [(6, 24), (40, 40), (4, 4), (2, 8)], ids=str)
@pytest.mark.parametrize("channels", [2, 9])
def test_positions_against_loops(high, low, channels, x64):
    """In both orders of the products, of which the cheaper is taken."""
    rng = np.random.default_rng(high)
    theta, phi, g = (rng.normal(size=(2, size, channels)) for size in (high, low, low))
    found = deen.attend_positions(*map(jnp.asarray, (theta, phi, g)))
    for image in range(2):
        t, p, v = (rows_of(maps[image]) for maps in (theta, phi, g))
        y = np.zeros_like(t)
        for i in range(high // 2):
            for j in range(low // 2):
                y[:, i] += (t[:, i] @ p[:, j]) / (low // 2) * v[:, j]
        np.testing.assert_allclose(found[image], y.reshape(channels, high).T, rtol=1e-10, atol=1e-12)


def test_channels_against_loops(x64):
    rng = np.random.default_rng(0)
    theta, phi, g = (rng.normal(size=(2, size, 3)) for size in (5, 5, 7))
    found = deen.attend_channels(*map(jnp.asarray, (theta, phi, g)))
    for image in range(2):
        y = np.zeros((7, 3))
        for a in range(3):
            for b in range(3):
                y[:, a] += (theta[image, :, a] @ phi[image, :, b]) / 3 * g[image, :, b]
        np.testing.assert_allclose(found[image], y, rtol=1e-12)


@pytest.mark.parametrize("train", [False, True])
def test_a_fresh_aggregation_is_the_identity(train):
    high, low = (jax.random.normal(jax.random.key(0), shape) for shape in ((2, 4, 2, 8), (2, 8, 4, 6)))
    block = deen.Aggregation()
    variables = block.init(jax.random.key(1), high, low, False)
    out, _ = block.apply(variables, high, low, train, mutable=["batch_stats"])
    np.testing.assert_array_equal(out, high)


def test_aggregation_keeps_the_type_of_the_maps():
    high, low = jnp.ones((1, 2, 2, 4), jnp.bfloat16), jnp.ones((1, 2, 2, 4), jnp.bfloat16)
    block = deen.Aggregation()
    assert block.apply(block.init(jax.random.key(0), high, low, False), high, low, False).dtype == jnp.bfloat16


def test_expansion_gives_maps_and_branches_in_order(x64):
    maps = jax.random.normal(jax.random.key(0), (2, 5, 4, 8), jnp.float64)
    block = deen.Expansion()
    variables = block.init(jax.random.key(1), maps, False)
    out = block.apply(variables, maps, False).reshape(3, *maps.shape)
    np.testing.assert_array_equal(out[0], maps)
    padded = np.pad(maps, ((0, 0), (3, 3), (3, 3), (0, 0)))
    for number in deen.BRANCHES:
        branch = jax.tree.map(np.asarray, variables["params"][f"branch{number}"])
        narrow = np.zeros((2, 5, 4, 2))
        for dilation in deen.DILATIONS:
            kernel = branch[f"dilated{dilation}"]["kernel"]
            for row in range(3):
                for column in range(3):
                    top, left = 3 + (row - 1) * dilation, 3 + (column - 1) * dilation
                    narrow += padded[:, top : top + 5, left : left + 4] @ kernel[row, column] / 3
        widen = branch["widen"]
        expected = np.maximum(narrow, 0) @ widen["kernel"][0, 0] + widen["bias"]
        np.testing.assert_allclose(out[number], expected, rtol=1e-12, atol=1e-12)


def test_dropout_wants_training_and_a_key():
    maps = jnp.ones((4, 6, 6, 8))
    block = deen.Expansion(0.3)
    variables = block.init(jax.random.key(0), maps, False)
    plain = block.apply(variables, maps, False)
    rngs = {"dropout": jax.random.key(1)}
    np.testing.assert_array_equal(block.apply(variables, maps, True), plain)
    np.testing.assert_array_equal(block.apply(variables, maps, False, rngs=rngs), plain)
    assert (block.apply(variables, maps, True, rngs=rngs) == 0).mean() == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("expanded", [1, 2, 3])
def test_the_network_ends_after_the_stage_that_follows_the_expansion(expanded):
    network = deen.ExpandedTwoStream(**RESNETS["resnet_micro"], expanded=expanded)
    images = {name: jnp.zeros((count, 32, 16, 3)) for name, count in (("visible", 2), ("infrared", 1))}
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), images, False))
    maps = jax.eval_shape(lambda v: network.apply(v, images, False), variables)
    assert maps.shape[0] == 9
    assert maps.shape[-1] == network.features == 32 * 2**expanded
    shared = variables["params"]["shared"]
    assert {name for name in shared if name.startswith("layer")} == {f"layer{i}_0" for i in range(1, expanded + 2)}
    assert {name for name in shared if not name.startswith("layer")} == {
        "expansion",
        *(f"aggregation{i}" for i in range(1, expanded + 1)),
    }


def test_maps_of_an_odd_number_of_positions_are_refused():
    network = deen.ExpandedTwoStream()
    for size in ((384, 144), (128, 72), (256, 128), (288, 144)):
        network.check_size(*size)
    with pytest.raises(UserError, match="9x5 positions"):
        network.check_size(144, 72)
    with pytest.raises(UserError, match="9x9 positions"):
        deen.ExpandedTwoStream(expanded=1).check_size(36, 36)


@pytest.mark.parametrize("expanded", [0, 4])
def test_a_stage_must_follow_the_expansion(expanded):
    with pytest.raises(UserError, match="another one follows"):
        deen.ExpandedTwoStream(expanded=expanded)
