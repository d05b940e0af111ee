"""Distances between query and gallery features, computed on the device in chunks of queries."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from mmreid_jax.errors import UserError

Kind = Literal["squared_euclidean", "euclidean", "cosine"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CHUNK = 512
"""Queries at a time: 512 x 10,000 float32 distances are 20 MB."""


def l2_normalise(features: np.ndarray) -> np.ndarray:
    """Rows of length one: [N, D] -> [N, D], in at least float32; a zero row stays zero."""
    features = _at_least_float32(features)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def squared_euclidean(query: np.ndarray, gallery: np.ndarray, chunk: int = CHUNK) -> np.ndarray:
    """|q|^2 + |g|^2 - 2 q.g, without a root, as HTT and TransReID rank by: [Q, D], [G, D] -> [Q, G]."""
    return whole("squared_euclidean", query, gallery, chunk)


def euclidean(query: np.ndarray, gallery: np.ndarray, chunk: int = CHUNK) -> np.ndarray:
    """Euclidean distances [Q, G]."""
    return whole("euclidean", query, gallery, chunk)


def cosine(query: np.ndarray, gallery: np.ndarray, chunk: int = CHUNK) -> np.ndarray:
    """One minus the cosine of the angle: [Q, D], [G, D] -> [Q, G]."""
    return whole("cosine", query, gallery, chunk)


def modality_gap(first: np.ndarray, second: np.ndarray) -> float:
    """Distance between the centres of two modalities' features [N, D] and [M, D], all of length one: 0 to 2.

    0 where the modalities lie on top of each other on average; meant for the same people seen in both.
    """
    centres = [l2_normalise(features).mean(0, dtype=np.float64) for features in (first, second)]
    return float(np.linalg.norm(centres[0] - centres[1]))


def whole(kind: Kind, query: np.ndarray, gallery: np.ndarray, chunk: int = CHUNK) -> np.ndarray:
    """All distances of a kind: [Q, D], [G, D] -> [Q, G], float32 (float64 for float64 features under 64-bit types).

    Raises:
      UserError: see `blocks`.
    """
    rows = list(blocks(kind, query, gallery, chunk))
    if len(rows) == 1:
        return rows[0]
    return np.concatenate(rows) if rows else np.zeros((0, len(gallery)), np.float32)


def blocks(kind: Kind, query: np.ndarray, gallery: np.ndarray, chunk: int = CHUNK) -> Iterator[np.ndarray]:
    """The distances of `chunk` queries after the other: yields [up to chunk, G], so that memory stays bounded.

    Args:
      kind: one of `KINDS`.
      query: features [Q, D].
      gallery: features [G, D], which stay on the device.
      chunk: queries at a time; the last chunk is filled up, so that one program serves all.

    Raises:
      UserError: the kind is unknown, or the features are not [Q, D] and [G, D].
    """
    check_kind(kind)
    if np.ndim(query) != 2 or np.ndim(gallery) != 2 or np.shape(query)[1] != np.shape(gallery)[1]:
        raise UserError(
            f"query and gallery features must be [number, dimension] of one dimension; they are"
            f" {list(np.shape(query))} and {list(np.shape(gallery))}"
        )
    return _blocks(kind, _at_least_float32(query), _at_least_float32(gallery), chunk)


def check_kind(kind: str, where: str = "distance") -> Kind:
    """`kind`, if it is one of KINDS; else `UserError`, which calls it `where`."""
    for known in KINDS:
        if kind == known:
            return known
    raise UserError(f"unknown {where} {kind!r}; choose one of {', '.join(KINDS)}")


def nearest(apart: np.ndarray, count: int) -> np.ndarray:
    """The nearest samples of every row, best first, equal ones in their order, as a stable argsort would give.

    Args:
      apart: distances [Q, G].
      count: how many.

    Returns:
      int64 [Q, min(count, G)].
    """
    count = min(count, apart.shape[1])
    if not count:
        return np.zeros((len(apart), 0), np.int64)
    # A partition and a sort of the few that pass are many times faster than an argsort of whole rows.
    farthest = np.partition(apart, count - 1, axis=1)[:, count - 1]
    out = np.empty((len(apart), count), np.int64)
    for row, limit, chosen in zip(apart, farthest, out, strict=True):
        candidates = np.flatnonzero(row <= limit)
        chosen[:] = candidates[np.argsort(row[candidates], kind="stable")[:count]]
    return out


def _at_least_float32(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features)
    return features.astype(np.promote_types(features.dtype, np.float32), copy=False)


@jax.jit
def _squared_lengths(features: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(features), axis=1)


@functools.partial(jax.jit, static_argnames="kind")
def _distances(kind: Kind, query: jax.Array, gallery: jax.Array, gallery_lengths: jax.Array) -> jax.Array:
    """[Q, D], [G, D], squared lengths [G] -> [Q, G]."""
    products = jnp.matmul(query, gallery.T, precision="highest")
    query_lengths = _squared_lengths(query)[:, None]
    if kind == "cosine":
        return 1.0 - products / jnp.maximum(jnp.sqrt(query_lengths) * jnp.sqrt(gallery_lengths), 1e-12)
    squared = query_lengths + gallery_lengths - 2.0 * products
    return squared if kind == "squared_euclidean" else jnp.sqrt(jnp.maximum(squared, 0.0))


def _blocks(kind: Kind, query: np.ndarray, gallery: np.ndarray, chunk: int) -> Iterator[np.ndarray]:
    if not len(query):
        return
    on_device = jnp.asarray(gallery)
    lengths = _squared_lengths(on_device)
    # Chunks of equal size leave the least to fill up.
    size = -(-len(query) // -(-len(query) // chunk))
    for start in range(0, len(query), size):
        part = query[start : start + size]
        filled = np.pad(part, ((0, size - len(part)), (0, 0))) if len(part) < size else part
        yield np.asarray(_distances(kind, jnp.asarray(filled), on_device, lengths))[: len(part)]
