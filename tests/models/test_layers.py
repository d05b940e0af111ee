"""Layers against the formulas of PyTorch and against loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.models import layers


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("shape", [(6, 5), (6, 4, 3, 5)])
def test_batch_norm_matches_the_formulas_of_pytorch(shape, x64):
    x = np.random.default_rng(0).normal(3, 2, shape)
    layer = layers.TorchBatchNorm()
    variables = layer.init(jax.random.key(0), x, True)
    y, new = layer.apply(variables, x, True, mutable=["batch_stats"])
    flat = x.reshape(-1, shape[-1])
    mean, var = flat.mean(0), flat.var(0)
    np.testing.assert_allclose(np.asarray(y).reshape(flat.shape), (flat - mean) / np.sqrt(var + 1e-5), atol=1e-12)
    stats = new["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, atol=1e-7)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * flat.var(0, ddof=1), atol=1e-7)
    assert stats["count"] == 1


def test_groups_are_successive_calls(x64):
    x = np.random.default_rng(0).normal(size=(6, 4, 3, 5))
    whole, single = layers.TorchBatchNorm(groups=3), layers.TorchBatchNorm()
    variables = whole.init(jax.random.key(0), x, True)
    y, new = whole.apply(variables, x, True, mutable=["batch_stats"])
    parts, reached = [], variables
    for part in np.split(x, 3):
        out, stats = single.apply(reached, part, True, mutable=["batch_stats"])
        parts.append(out)
        reached = {**reached, **stats}
    np.testing.assert_allclose(y, np.concatenate(parts), atol=1e-12)
    for wanted, got in zip(jax.tree.leaves(reached["batch_stats"]), jax.tree.leaves(new["batch_stats"]), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-7)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (1, 2, 0), (3, 2, 1), (7, 2, 3)])
def test_convolution_matches_a_loop(kernel, stride, padding, x64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 8, 6, 3))
    layer = layers.Conv(4, kernel, stride, padding)
    weight = rng.normal(size=(kernel, kernel, 3, 4))
    y = np.asarray(layer.apply({"params": {"kernel": weight}}, x))
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    for row in range(y.shape[1]):
        for column in range(y.shape[2]):
            top, left = row * stride, column * stride
            window = padded[:, top : top + kernel, left : left + kernel]
            np.testing.assert_allclose(y[:, row, column], np.einsum("bhwi,hwio->bo", window, weight), atol=1e-12)


# Bounds relative to the largest entry: rounding of sums of a few hundred terms.
TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 3e-2}


@pytest.fixture(params=TOLERANCE)
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
