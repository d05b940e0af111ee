"""Distances between query and gallery features, computed on the device in chunks of queries."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

CHUNK = 512
"""Queries at a time: 512 x 10,000 float32 distances are 20 MB."""


def l2_normalise(features: np.ndarray) -> np.ndarray:
    """Rows of length one: [N, D] -> [N, D]; a zero row stays zero."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def squared_euclidean(query: np.ndarray, gallery: np.ndarray, chunk: int = CHUNK) -> np.ndarray:
    """|q|^2 + |g|^2 - 2 q.g, without a root, as HTT and TransReID rank by: [Q, D], [G, D] -> [Q, G]."""
    return _in_chunks(_squared, query, gallery, chunk)


def euclidean(query: np.ndarray, gallery: np.ndarray, chunk: int = CHUNK) -> np.ndarray:
    """Euclidean distances [Q, G]."""
    return np.sqrt(np.maximum(squared_euclidean(query, gallery, chunk), 0.0))


def cosine(query: np.ndarray, gallery: np.ndarray, chunk: int = CHUNK) -> np.ndarray:
    """One minus the cosine of the angle: [Q, D], [G, D] -> [Q, G]."""
    return _in_chunks(_cosine, l2_normalise(query), l2_normalise(gallery), chunk)


def _squared(query: jax.Array, gallery: jax.Array) -> jax.Array:
    products = jnp.matmul(query, gallery.T, precision="highest")
    return jnp.square(query).sum(1)[:, None] + jnp.square(gallery).sum(1)[None, :] - 2.0 * products


def _cosine(query: jax.Array, gallery: jax.Array) -> jax.Array:
    return 1.0 - jnp.matmul(query, gallery.T, precision="highest")


@functools.cache
def _compiled(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    return jax.jit(function)


def _in_chunks(function: Callable[..., jax.Array], query: np.ndarray, gallery: np.ndarray, chunk: int) -> np.ndarray:
    """Applies `function` to `chunk` queries at a time; the last chunk is filled up, so that one program serves all."""
    on_device = jnp.asarray(gallery)
    rows = []
    size = min(chunk, max(len(query), 1))
    for start in range(0, len(query), size):
        part = query[start : start + size]
        filled = np.pad(part, ((0, size - len(part)), (0, 0)))
        rows.append(np.asarray(_compiled(function)(jnp.asarray(filled), on_device))[: len(part)])
    return np.concatenate(rows) if rows else np.zeros((0, len(gallery)), query.dtype)
