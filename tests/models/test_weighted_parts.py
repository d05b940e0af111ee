"""Weighted-part attention against loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mmreid_jax.models.resnet import part_pool
from mmreid_jax.models.weighted_parts import WeightedParts


def test_parts_against_loops(x64):
    rng = np.random.default_rng(0)
    maps, features = rng.normal(size=(2, 7, 2, 4)), rng.normal(size=(2, 4))
    model = WeightedParts(3)
    variables = model.init(jax.random.key(0), jnp.asarray(maps), jnp.asarray(features), False)
    params = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), variables["params"])
    out = model.apply({**variables, "params": params}, jnp.asarray(maps), jnp.asarray(features), False)
    parts = np.asarray(part_pool(jnp.asarray(maps), 3))
    p = jax.tree.map(np.asarray, params)
    softmax = lambda x: np.exp(x) / np.exp(x).sum()  # noqa: E731
    for image in range(2):
        query, key, value = (parts[image] @ p[name]["kernel"] + p[name]["bias"] for name in ("query", "key", "value"))
        total = features[image].copy()
        for i in range(3):
            weights = softmax(np.array([query[i] @ key[j] for j in range(3)]))
            total += softmax(p["gate"])[i] * sum(weights[j] * value[j] for j in range(3))
        wanted = total / np.sqrt(1 + 1e-5) * p["bottleneck"]["scale"] + p["bottleneck"]["bias"]
        np.testing.assert_allclose(out[image], wanted, rtol=1e-10, atol=1e-12)
