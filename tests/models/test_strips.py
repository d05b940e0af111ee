"""Strips of feature maps and their heads."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.models.resnet import part_pool
from mmreid_jax.models.strips import StripHeads, strip_pool


@pytest.mark.parametrize("height", [6, 7, 11, 12, 18, 20, 23])
@pytest.mark.parametrize("strips", [1, 4, 6])
def test_strips_are_alike_and_reach_from_edge_to_edge(height, strips, x64):
    maps = np.random.default_rng(height).normal(size=(2, height, 3, 4))
    pooled = strip_pool(jnp.asarray(maps), strips)
    assert pooled.shape == (2, strips, 4)
    stride = height // strips
    size = height - stride * (strips - 1)
    for i in range(strips):
        np.testing.assert_allclose(pooled[:, i], maps[:, i * stride : i * stride + size].mean((1, 2)), rtol=1e-12)
    assert (strips - 1) * stride + size == height


def test_strips_are_those_of_adaptive_pooling_where_the_height_is_a_multiple(x64):
    maps = jnp.asarray(np.random.default_rng(0).normal(size=(2, 18, 3, 4)))
    np.testing.assert_allclose(strip_pool(maps, 6), part_pool(maps, 6), rtol=1e-12)
    odd = maps[:, :16]
    assert not np.allclose(strip_pool(odd, 6), part_pool(odd, 6))


def test_half_precision_is_summed_in_float32():
    maps = jnp.full((1, 6, 64, 2), 1.001, jnp.bfloat16)
    assert strip_pool(maps, 6).dtype == jnp.float32


def test_too_low_a_map_is_refused():
    with pytest.raises(UserError, match="5 rows cannot be cut into 6 strips"):
        strip_pool(jnp.zeros((1, 5, 3, 2)), 6)


def heads(dropout=0.0, classes=5):
    model = StripHeads(classes, 4, dropout)
    strips = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3, 6)), jnp.float32)
    variables = jax.jit(lambda key: model.init(key, strips, False))(jax.random.key(0))
    return model, strips, variables


def test_every_strip_has_layers_of_its_own_and_they_are_those_of_one_strip_alone():
    model, strips, variables = heads()
    (embeddings, logits), new = model.apply(variables, strips, True, mutable=["batch_stats"])
    assert embeddings.shape == (8, 3, 4)
    assert logits.shape == (8, 3, 5)
    params = variables["params"]
    for i in range(3):
        y = np.asarray(strips[:, i] @ params["embed"]["linear"]["kernel"][i])
        y = (y - y.mean(0)) / np.sqrt(y.var(0) + 1e-5) * params["embed"]["norm"]["scale"][i]
        np.testing.assert_allclose(embeddings[:, i], y, rtol=1e-3, atol=1e-4)
        active = np.where(y > 0, y, 0.1 * y)
        np.testing.assert_allclose(logits[:, i], active @ params["classifier"]["kernel"][i], rtol=1e-3, atol=1e-6)
    assert not np.allclose(params["embed"]["linear"]["kernel"][0], params["embed"]["linear"]["kernel"][1])
    assert new["batch_stats"]["embed"]["norm"]["count"].tolist() == [1, 1, 1]


def test_fresh_layers_follow_the_authors_laws():
    model = StripHeads(200, 256)
    params = jax.jit(lambda key: model.init(key, jnp.zeros((2, 6, 300)), False))(jax.random.key(1))["params"]
    assert params["embed"]["linear"]["kernel"].std() == pytest.approx(np.sqrt(2 / 256), rel=0.01)
    assert params["classifier"]["kernel"].std() == pytest.approx(0.001, rel=0.01)
    scale = params["embed"]["norm"]["scale"]
    assert scale.mean() == pytest.approx(1, abs=1e-3)
    assert scale.std() == pytest.approx(0.01, rel=0.1)
    assert not params["embed"]["linear"]["bias"].any()


def test_dropout_follows_its_key_and_is_off_without_one():
    model, strips, variables = heads(dropout=0.5)
    dropping = jax.jit(lambda v, x, key: model.apply(v, x, False, key)[1])
    certain = jax.jit(lambda v, x: model.apply(v, x, False)[1])
    sure = certain(variables, strips)
    one, same, other = (dropping(variables, strips, jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    without = heads()[0]
    np.testing.assert_allclose(sure, without.apply(variables, strips, False)[1], rtol=1e-5, atol=1e-7)
    # What passes is scaled up, so that the mean stays; the classifiers are linear.
    many = jnp.tile(strips[:1], (2000, 1, 1))
    mean = np.asarray(dropping(variables, many, jax.random.key(3))).mean(0)
    np.testing.assert_allclose(mean, sure[0], atol=0.15 * np.abs(sure[0]).max())
