"""Layers equal their plain forms, value and gradient, in every precision."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.models import layers, vit

# Bounds relative to the largest entry: rounding of sums of a few hundred terms.
TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 3e-2}


@pytest.fixture(params=TOLERANCE, autouse=True)
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield jnp.dtype(request.param)


def draw(seed, *shape, dtype):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def assert_equal_with_gradients(fast, plain, arguments, dtype):
    """Compares values and pullbacks; the plain form is computed in the next wider type where the type is 16 bits."""
    wide = jnp.float32 if dtype == jnp.bfloat16 else dtype
    value, pull = jax.vjp(jax.jit(fast), *arguments)
    expected, pull_expected = jax.vjp(plain, *(x.astype(wide) for x in arguments))
    g = draw(9, *value.shape, dtype=dtype)
    assert value.dtype == dtype
    for actual, wanted in zip((value, *pull(g)), (expected, *pull_expected(g.astype(wide))), strict=True):
        assert actual.dtype == dtype
        difference = float(jnp.abs(actual.astype(wide) - wanted).max())
        assert difference <= TOLERANCE[dtype.name] * float(jnp.abs(wanted).max())


# More inputs than outputs: the gradient of the kernel is formed transposed.
@pytest.mark.parametrize(("inputs", "outputs"), [(24, 40), (1024, 48), (48, 1024), (512, 1024)])
def test_project(inputs, outputs, dtype):
    x, kernel = draw(0, 3, 5, inputs, dtype=dtype), draw(1, inputs, outputs, dtype=dtype)
    assert_equal_with_gradients(layers.project, jnp.matmul, (x, kernel), dtype)


def test_gelu(dtype):
    x = 3 * draw(0, 4, 500, dtype=dtype)
    assert_equal_with_gradients(layers.gelu, lambda y: jax.nn.gelu(y, approximate=False), (x,), dtype)


@pytest.mark.parametrize("value", [-40.0, 0.0, 40.0])
def test_gelu_of_extremes(value, dtype):
    y, slope = jax.value_and_grad(layers.gelu)(jnp.asarray(value, dtype))
    assert (y, slope) == (max(value, 0.0), {-40.0: 0.0, 0.0: 0.5, 40.0: 1.0}[value])


def test_quick_gelu(dtype):
    x = 3 * draw(0, 4, 500, dtype=dtype)
    assert_equal_with_gradients(layers.quick_gelu, lambda y: y / (1 + jnp.exp(-1.702 * y)), (x,), dtype)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("scale", [0.25, 64**-0.5])
def test_attention(scale, causal, dtype):
    def plain(qkv):
        q, k, v = jnp.moveaxis(qkv.reshape(*qkv.shape[:2], 3, 4, -1), 2, 0)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * scale
        if causal:
            scores += jnp.where(np.tri(qkv.shape[1], dtype=bool), 0.0, -jnp.inf)
        return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v).reshape(*qkv.shape[:2], -1)

    qkv = draw(0, 2, 9, 3 * 4 * 16, dtype=dtype)
    assert_equal_with_gradients(lambda y: layers.attention(y, 4, scale, causal), plain, (qkv,), dtype)


def test_one_by_one_convolution_is_the_convolution(dtype):
    x = draw(0, 2, 7, 6, 16, dtype=dtype)
    layer = layers.Conv(12, kernel=1, stride=2)

    def plain(images, kernel):
        return jax.lax.conv_general_dilated(images, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    kernel = draw(1, 1, 1, 16, 12, dtype=dtype)
    assert_equal_with_gradients(lambda y, w: layer.apply({"params": {"kernel": w}}, y), plain, (x, kernel), dtype)


def test_max_pool_gives_the_gradient_to_the_first_maximum(dtype):
    x = jnp.ones((1, 4, 6, 1), dtype)
    gradient = jax.grad(lambda maps: layers.max_pool(maps, 2, 0).sum())(x)
    first = np.zeros((4, 6))
    first[::2, ::2] = 1
    np.testing.assert_array_equal(gradient[0, :, :, 0], first)


@pytest.mark.parametrize("stride", [8, 5])
def test_patch_embedding_is_a_convolution(stride, dtype):
    size = vit.SIZES["vit_micro"]
    # Neither side is a multiple of the patch: the rest is left out.
    images, kernel, bias = (
        draw(0, 2, 34, 21, 3, dtype=dtype),
        draw(1, 8, 8, 3, size.width, dtype=dtype),
        draw(2, size.width, dtype=dtype),
    )
    plain = nn.Conv(size.width, (8, 8), (stride, stride), padding="VALID")

    def as_tokens(x, w, b):
        maps = plain.apply({"params": {"kernel": w, "bias": b}}, x)
        return maps.reshape(len(x), -1, size.width)

    def embed(x, w, b):
        return vit.PatchEmbed(size, stride).apply({"params": {"kernel": w, "bias": b}}, x)

    assert_equal_with_gradients(embed, as_tokens, (images, kernel, bias), dtype)
