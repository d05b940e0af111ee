"""MDReID's losses on what a sample's modalities have in common (shared) and what each has alone (specific).

Reference: Feng et al., MDReID: Modality-Decoupled Learning for Any-to-Any Multi-Modal Object Re-Identification, NeurIPS
2025; the authors' code.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmreid_jax.losses.triplet import batch_hard_triplet
from mmreid_jax.losses.vectors import at_least_float32, l2_normalise

Array = jax.Array


def orthogonality(specific: Array, shared: Array) -> Array:
    """Specific features of a sample shall be unlike each other and the shared ones, and these all alike.

    With the cosines W of the 2 M features of a sample, specific ones first, and the cosines V of the rows of W: the
    mean of (V - A)^2 over the pairs, A being the identity for the specific features and ones among the shared; averaged
    over the samples.

    Args:
      specific: [M, B, D], of M modalities.
      shared: [M, B, D].

    Returns:
      Scalar.
    """
    count = len(specific)
    rows = l2_normalise(jnp.swapaxes(at_least_float32(jnp.concatenate([specific, shared])), 0, 1))
    cosines = jnp.einsum("bid,bjd->bij", rows, rows)
    lengths = jnp.sqrt(jnp.sum(jnp.square(cosines), axis=-1, keepdims=True) + 1e-6)
    directions = cosines / lengths
    wanted = jnp.eye(2 * count, dtype=cosines.dtype).at[count:, count:].set(1.0)
    return jnp.mean(jnp.square(jnp.einsum("bik,bjk->bij", directions, directions) - wanted))


def disentangling(specific: Array, shared: Array, labels: Array) -> Array:
    """Both kinds of features together shall tell identities apart better than each kind alone.

    Of all features side by side, of the specific and of the shared ones, let p be the largest of the distances to the
    farthest sample of the same identity and n the smallest of those to the nearest of another one. The loss is
    ``|p / (p + p_specific + p_shared)| + |n / (n + n_specific + n_shared) - 1|``; no gradient passes through the kinds
    alone.

    Args:
      specific: [M, B, D], of M modalities.
      shared: [M, B, D].
      labels: int [B].

    Returns:
      Scalar.
    """
    both = jnp.stack([specific, shared], axis=1).reshape(-1, *specific.shape[1:])
    kinds = (both, jax.lax.stop_gradient(specific), jax.lax.stop_gradient(shared))
    mined = [batch_hard_triplet(jnp.concatenate(list(each), axis=-1), labels)[1] for each in kinds]
    farthest, nearest = ([reduce(each[i]) for each in mined] for i, reduce in ((0, jnp.max), (1, jnp.min)))
    same, other = (values[0] / sum(values[1:], start=values[0]) for values in (farthest, nearest))
    return jnp.abs(same) + jnp.abs(other - 1.0)
