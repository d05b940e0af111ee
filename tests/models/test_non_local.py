"""The non-local block against its definition over all pairs of positions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.models.non_local import NonLocal


def naive(params, stats, x):
    """In evaluation, by loops: x [B, H, W, C]."""
    theta, phi, g, expand = (params[name] for name in ("theta", "phi", "g", "expand"))
    out = np.array(x)
    for image, result in zip(x, out, strict=True):
        positions = image.reshape(-1, image.shape[-1])
        t, p, v = (positions @ layer["kernel"] + layer["bias"] for layer in (theta, phi, g))
        for i in range(len(positions)):
            y = sum((t[i] @ p[j]) * v[j] for j in range(len(positions))) / len(positions)
            z = y @ expand["kernel"] + expand["bias"]
            z = (z - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["norm"]["scale"] + params["norm"]["bias"]
            result.reshape(-1, image.shape[-1])[i] += z
    return out


@pytest.mark.parametrize("width", [1, 3])
def test_it_is_the_sum_over_all_pairs(width, x64):
    rng = np.random.default_rng(width)
    x = rng.normal(size=(2, 3, 2, 4))
    block = NonLocal(width)
    variables = block.init(jax.random.key(0), jnp.asarray(x), True)
    variables = jax.tree.map(lambda v: np.abs(rng.normal(size=v.shape)), variables)
    expected = naive(variables["params"], variables["batch_stats"]["norm"], x)
    np.testing.assert_allclose(block.apply(variables, jnp.asarray(x), False), expected, rtol=1e-12)


def test_it_keeps_the_type_of_the_maps():
    x = jnp.ones((1, 2, 2, 4), jnp.bfloat16)
    out, _ = NonLocal().init_with_output(jax.random.key(0), x, True)
    assert out.dtype == jnp.bfloat16
    assert out.shape == x.shape
