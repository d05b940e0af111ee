"""Variants of methods that the tests of methods and of conversion share."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mmreid_jax.testing import tiny

DDAG_ABLATIONS = [
    {"model__wpa": False, "model__graph": False, "eval__feature": "fc"},
    {"model__wpa": False, "eval__feature": "fc"},
    {"model__graph": False},
    {},
]


@functools.cache
def ddag_variables(wpa=True, graph=True):
    """Initial variables of a tiny method; no other option has a say in them."""
    _, method = tiny.method("ddag", model__wpa=wpa, model__graph=graph, eval__feature="fc")
    return jax.tree.map(np.asarray, jax.jit(method.init)(jax.random.key(0)))


def ddag_variables_of(config):
    """Those of a config."""
    return ddag_variables(config.model.wpa, config.model.graph)


def noise(method, seed=0):
    """Variables of noise with sensible statistics."""
    rng = np.random.default_rng(seed)

    def fill(path, like):
        value = 0.2 * rng.normal(size=like.shape).astype(np.float32)
        leaf = path[-1].key
        if leaf == "count":
            return np.zeros(like.shape, np.int32)
        return np.abs(value) + 1 if leaf in ("scale", "var") else value

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(method.init, jax.random.key(0)))


KEY = jax.random.key(0)


@functools.cache
def mmgl_variant(**overrides):
    """(config, method, variables that are not those of a fresh network)."""
    config, method = tiny.method("mmgl", **overrides)
    shift = lambda x: x + 0.125 if jnp.issubdtype(x.dtype, jnp.floating) else x + 1  # noqa: E731
    return config, method, jax.tree.map(shift, jax.jit(method.init)(KEY))
