"""Tiny models that look trained, for the tests of exported files."""

from __future__ import annotations

import jax
import numpy as np

from mmreid_jax.model import Extractor
from mmreid_jax.testing import tiny

# What is exported of every method: (modalities, feature); "": the usual one.
EVERY = {
    "agw": [("nir", ""), ("rgb", "")],
    "caj": [("nir", "")],
    "ddag": [("rgb", "")],
    "deen": [("nir", ""), ("rgb", "pool")],
    "demo_moe": [("", ""), ("rgb", "")],
    "hetero_center": [("nir", "")],
    "htt": [("", ""), ("rgb", ""), ("", "nir")],
    "ieee": [("", "")],
    "mdreid": [("", ""), ("rgb", "")],
    "mmgl": [("rgb", "")],
    "tvi_lfm": [("nir", ""), ("rgb", ""), ("nir", "fusion"), ("nir", "mer"), ("nir", "text")],
}


def weights(path, leaf):
    """Values that leave the activations in their range, all different."""
    rng = np.random.default_rng(leaf.size + len(path))
    named = {"scale": 1, "var": 1, "power": 3}
    if leaf.ndim > 1 and path[-1].key not in named:
        return (rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(leaf.dtype)
    middle = named.get(path[-1].key, 0)
    spread = 0 if np.issubdtype(leaf.dtype, np.integer) else 0.1
    return (middle + spread * rng.uniform(-1, 1, leaf.shape)).astype(leaf.dtype)


def extractor(name, **overrides):
    config, method = tiny.method(name, **overrides)
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    return Extractor.of(config, method, jax.tree_util.tree_map_with_path(weights, shapes))
