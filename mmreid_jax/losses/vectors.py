"""Vector arithmetic that the losses share: precision, normalisation, distances between all rows."""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp

from mmreid_jax.errors import UserError

Array = jax.Array
Distance = Literal["l1", "l2", "cos"]
DISTANCES: tuple[Distance, ...] = ("l1", "l2", "cos")


def at_least_float32(array: Array) -> Array:
    """`array` in float32, or in its own type if that is wider; losses are never computed in half precision."""
    array = jnp.asarray(array)
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def l2_normalise(vectors: Array) -> Array:
    """Rows of unit length: x / max(|x|, 1e-12), along the last axis; a zero row stays zero, with a finite gradient."""
    # The floor is put under the square, because the gradient of the root at zero is infinite.
    squared = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
    return vectors / jnp.sqrt(jnp.maximum(squared, 1e-24))


def check_distance(distance: str) -> None:
    """Raises UserError unless `distance` is one of `DISTANCES`."""
    if distance not in DISTANCES:
        raise UserError(f"unknown distance {distance!r} of a margin loss; choose one of {', '.join(DISTANCES)}")


def paired_distance(a: Array, b: Array, distance: Distance) -> Array:
    """Distance of vectors along the last axis, the other axes broadcast: [..., D], [..., D] -> [...].

    ``l1`` is the mean over the dimensions of |a - b|, ``l2`` the sum of (a - b)^2, ``cos`` the cosine similarity (of
    vectors of length at least 1e-8): what the margin losses of HTT call distances.
    """
    if distance == "l1":
        return jnp.mean(jnp.abs(a - b), axis=-1)
    if distance == "l2":
        return jnp.sum(jnp.square(a - b), axis=-1)
    lengths = jnp.sum(a * a, axis=-1) * jnp.sum(b * b, axis=-1)
    return jnp.sum(a * b, axis=-1) / jnp.sqrt(jnp.maximum(lengths, 1e-16))


@functools.partial(jax.jit, static_argnames="distance")
def distances_between_rows(rows: Array, distance: Distance) -> Array:
    """`paired_distance` of all pairs of rows: [N, D] -> [N, N].

    Under jit the [N, N, D] differences are fused into their sum and never stored; hence the jit of its own, which makes
    that true in eager calls as well. Measured on a CPU, the form below beats sums over a leading axis and scans over
    dimensions or rows. Differences rather than a matrix product also keep exact ties between copies of a vector.
    """
    return paired_distance(rows[:, None, :], rows[None, :, :], distance)
