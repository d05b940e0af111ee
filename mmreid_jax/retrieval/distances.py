"""Distances between query and gallery features, computed in chunks of queries.

On an accelerator one jitted program makes them. Where the host is all there is, numpy's product does: it is as fast as
XLA's, takes the features where they lie, and leaves its result where the rest is added in place, whereas XLA copies
the gallery first and makes of product and sum one program that is slower than the product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from mmreid_jax.errors import UserError, printable

Kind = Literal["squared_euclidean", "euclidean", "cosine"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CHUNK = 1024
"""Queries at a time, fewer where the gallery is large: 1,024 x 10,000 float32 distances are 41 MB."""
# Distances of a chunk, at most (128 MB in float32), and those that stay in the cache of a processor.
_MOST, _TOGETHER = 1 << 25, 1 << 17


def squared_lengths(features: np.ndarray) -> np.ndarray:
    """Squared lengths of rows, [N, D] -> [N], without an array of squares."""
    return np.einsum("nd,nd->n", features, features)


def l2_normalise(features: np.ndarray) -> np.ndarray:
    """Rows of length one: [N, D] -> [N, D], in at least float32; a zero row stays zero."""
    features = _at_least_float32(features)
    return features / np.maximum(np.sqrt(squared_lengths(features)), 1e-12)[:, None]


def squared_euclidean(query: np.ndarray, gallery: np.ndarray, chunk: int = CHUNK) -> np.ndarray:
    """|q|^2 + |g|^2 - 2 q.g, without a root, as HTT and TransReID rank by: [Q, D], [G, D] -> [Q, G]."""
    return whole("squared_euclidean", query, gallery, chunk)


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
    check_features(kind, query, gallery)
    query, gallery = _comparable(query), _comparable(gallery)
    out = np.empty((len(query), len(gallery)), np.result_type(query, gallery))
    start = 0
    for block in _blocks(kind, query, gallery, chunk, out):
        if block.base is not out:
            out[start : start + len(block)] = block
        start += len(block)
    return out


def blocks(
    kind: Kind, query: np.ndarray, gallery: np.ndarray, chunk: int = CHUNK, reuse: bool = False
) -> Iterator[np.ndarray]:
    """The distances of `chunk` queries after the other: yields [up to chunk, G], so that memory stays bounded.

    Args:
      kind: one of `KINDS`.
      query: features [Q, D].
      gallery: features [G, D].
      chunk: queries at a time, at most.
      reuse: a block may be overwritten when the next one is asked for, which saves the time to get memory for it.

    Raises:
      UserError: the kind is unknown, or the features are not [Q, D] and [G, D].
    """
    check_features(kind, query, gallery)
    query, gallery = _comparable(query), _comparable(gallery)
    chunk = _rows(chunk, len(gallery))
    out = np.empty((min(chunk, len(query)), len(gallery)), np.result_type(query, gallery)) if reuse else None
    return _blocks(kind, query, gallery, chunk, out)


def check_features(kind: Kind, query: np.ndarray, gallery: np.ndarray) -> None:
    """`UserError` where the kind is unknown, or the features are not [Q, D] and [G, D]."""
    check_kind(kind)
    if np.ndim(query) != 2 or np.ndim(gallery) != 2 or np.shape(query)[1] != np.shape(gallery)[1]:
        raise UserError(
            f"query and gallery features must be [number, dimension] of one dimension; they are"
            f" {list(np.shape(query))} and {list(np.shape(gallery))}"
        )


def check_finite(features: np.ndarray, names: Sequence[object] | np.ndarray, what: str) -> None:
    """`UserError` naming the images whose features are NaN or infinite.

    Args:
      features: [N, D].
      names: of the images, [N].
      what: one of them is, as in ``query``.
    """
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise not_finite(bad, [names[row] for row in bad[:3]], what)


def not_finite(rows: np.ndarray | Sequence[int], names: Sequence[object], what: str) -> UserError:
    """The sentence about images `rows` whose features are NaN or infinite; `names`: of the first of them."""
    listed = ", ".join(printable(name) for name in names)
    more = f" and of {len(rows) - len(names)} more" if len(rows) > len(names) else ""
    return UserError(
        f"features of {what} {listed}{more} are not finite; look at the image and the weights, and extract them again"
    )


def check_kind(kind: str, where: str = "distance") -> Kind:
    """`kind`, if it is one of KINDS; else `UserError`, which calls it `where`."""
    for known in KINDS:
        if kind == known:
            return known
    raise UserError(f"unknown {where} {kind!r}; choose one of {', '.join(KINDS)}")


def nearest(distances: np.ndarray, count: int) -> np.ndarray:
    """The nearest samples of every row, best first, equal ones in their order, as a stable argsort would give.

    Args:
      apart: distances [Q, G].
      count: how many.

    Returns:
      int64 [Q, min(count, G)].
    """
    count = min(count, distances.shape[1])
    if not count:
        return np.zeros((len(distances), 0), np.int64)
    # A partition and a sort of the few that pass are many times faster than an argsort of whole rows.
    farthest = np.partition(distances, count - 1, axis=1)[:, count - 1]
    out = np.empty((len(distances), count), np.int64)
    for row, limit, chosen in zip(distances, farthest, out, strict=True):
        candidates = np.flatnonzero(row <= limit)
        chosen[:] = candidates[np.argsort(row[candidates], kind="stable")[:count]]
    return out


def _at_least_float32(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features)
    return features.astype(np.promote_types(features.dtype, np.float32), copy=False)


def _comparable(features: np.ndarray) -> np.ndarray:
    """In at least float32, and in float64 where JAX has 64-bit types alone."""
    features = _at_least_float32(features)
    return features.astype(jax.dtypes.canonicalize_dtype(features.dtype), copy=False)


def _rows(chunk: int, size: int) -> int:
    """Queries at a time against `size` gallery samples."""
    return max(1, min(chunk, _MOST // max(size, 1)))


def _blocks(
    kind: Kind, query: np.ndarray, gallery: np.ndarray, chunk: int, out: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """See `blocks`.

    With `out` the host's distances are made there: [Q, G] for all, [fewer, G] for those of the latest chunk.
    """
    if not len(query):
        return iter(())
    # Chunks of equal size leave the least to fill up.
    chunk = -(-len(query) // -(-len(query) // chunk))
    make = _on_host if jax.default_backend() == "cpu" else _on_device
    return make(kind, query, gallery, chunk, out)


def _on_host(
    kind: Kind, query: np.ndarray, gallery: np.ndarray, chunk: int, out: np.ndarray | None
) -> Iterator[np.ndarray]:
    """Chunks by numpy."""
    query_lengths, lengths = squared_lengths(query), squared_lengths(gallery)
    dtype = np.result_type(query, gallery)
    together = max(1, _TOGETHER // max(len(gallery), 1))
    for start in range(0, len(query), chunk):
        part = query[start : start + chunk]
        if out is None:
            block = np.empty((len(part), len(gallery)), dtype)
        else:
            block = out[start : start + len(part)] if len(out) == len(query) else out[: len(part)]
        np.matmul(part, gallery.T, out=block)
        for first in range(0, len(part), together):
            rows = slice(first, first + together)
            _finish(kind, block[rows], query_lengths[start : start + len(part)][rows, None], lengths)
        yield block


def _finish(kind: Kind, products: np.ndarray, query_lengths: np.ndarray, lengths: np.ndarray) -> None:
    """Makes distances of products [B, G] in place, given squared lengths [B, 1] and [G]."""
    if kind == "cosine":
        products /= np.maximum(np.sqrt(query_lengths) * np.sqrt(lengths), 1e-12)
        np.subtract(1, products, out=products)
        return
    products *= -2
    products += query_lengths + lengths
    if kind == "euclidean":
        np.sqrt(np.maximum(products, 0, out=products), out=products)


def _on_device(
    kind: Kind, query: np.ndarray, gallery: np.ndarray, chunk: int, out: np.ndarray | None
) -> Iterator[np.ndarray]:
    """Chunks by a jitted program, the next one in the making while the host looks at one."""
    del out
    on_device = jnp.asarray(gallery)
    lengths = _lengths(on_device)

    def begun(start: int) -> jax.Array:
        part = query[start : start + chunk]
        # The last chunk is filled up, so that one program serves all.
        filled = np.pad(part, ((0, chunk - len(part)), (0, 0))) if len(part) < chunk else part
        return _distances(kind, jnp.asarray(filled), on_device, lengths)

    following = begun(0)
    for start in range(0, len(query), chunk):
        block = following
        if start + chunk < len(query):
            following = begun(start + chunk)
        yield np.asarray(block)[: len(query) - start]


@jax.jit
def _lengths(features: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(features), axis=1)


def pairwise(kind: Kind, query: jax.Array, gallery: jax.Array, gallery_lengths: jax.Array | None = None) -> jax.Array:
    """Distances in JAX, for use in a jitted function.

    Args:
      kind: one of `KINDS`.
      query: [Q, D].
      gallery: [G, D].
      gallery_lengths: [G], squared, where they are known.

    Returns:
      [Q, G].
    """
    products = jnp.matmul(query, gallery.T, precision="highest")
    query_lengths = _lengths(query)[:, None]
    lengths = _lengths(gallery) if gallery_lengths is None else gallery_lengths
    if kind == "cosine":
        return 1.0 - products / jnp.maximum(jnp.sqrt(query_lengths) * jnp.sqrt(lengths), 1e-12)
    squared = query_lengths + lengths - 2.0 * products
    return squared if kind == "squared_euclidean" else jnp.sqrt(jnp.maximum(squared, 0.0))


_distances = jax.jit(pairwise, static_argnames="kind")
