"""Losses between the copies of an expanded embedding: centre-guided pairs, and orthogonality.

Reference: Zhang and Wang 2023 (DEEN, CVPR), section 3.2; class ``CPMLoss`` of the authors' code, and its network.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmreid_jax.errors import UserError
from mmreid_jax.losses import margins, triplet
from mmreid_jax.losses.vectors import at_least_float32, paired_distance

Array = jax.Array


def center_guided_pairs(
    visible: Array,
    infrared: Array,
    expanded_visible: Array,
    expanded_infrared: Array,
    labels: Array | None = None,
    *,
    margin: float = 0.2,
    grouping: margins.Grouping = "by_label",
    num_identities: int | None = None,
) -> Array:
    """Pulls the centre of each identity to its expanded centre in the other modality, and that away from the others.

    With the centres v_i, r_i of identity i in visible and infrared, v'_i and r'_i of their expanded features, d the
    Euclidean distance and [x] = max(0, x), the loss is (half(v, r, v') + half(r, v, r')) / 2 with

        half(a, b, e) = mean_i [d(b_i, e_i) - d(a_i, e_i) + m]
                      + 1/2 mean_i [d(b_i, e_i) - min_j d(e_i, e_j) + m]
                      + 1/2 mean_i [d(b_i, e_i) - min_j d(a_i, a_j) + m]

    over j other than i. No gradient flows through d(a_i, e_i). A single identity has no other: the last two are 0.

    Args:
      visible, infrared: features [B, D], as they are; row i of both is of the same identity.
      expanded_visible, expanded_infrared: [B, D], of the same images in another copy.
      labels: int [B]; not read when the grouping is positional.
      margin: m. Parity: 0.2 in the released code, whatever it is asked for.
      grouping: see `margins`; the authors' code cuts by position, which is the same on sorted batches of P identities
        with K images each.
      num_identities: number of chunks of the positional grouping, static.

    Returns:
      Scalar.

    Raises:
      UserError: shapes differ, or the batch cannot be cut into `num_identities` chunks.
    """
    shapes = [jnp.shape(part) for part in (visible, infrared, expanded_visible, expanded_infrared)]
    if len(set(shapes)) != 1 or len(shapes[0]) != 2:
        raise UserError(f"centre-guided pairs compare four arrays [batch, dimension] of one shape; got {shapes}")
    every = at_least_float32(jnp.stack([visible, infrared, expanded_visible, expanded_infrared]))
    groups = margins.cut(every, labels, grouping, num_identities)
    (v, r, expanded_v, expanded_r), exists = margins.group_centers(every, groups)
    halves = _pull(v, r, expanded_v, exists, margin), _pull(r, v, expanded_r, exists, margin)
    return (halves[0] + halves[1]) / 2


def _pull(own: Array, other: Array, expanded: Array, exists: Array, margin: float) -> Array:
    """``half`` of `center_guided_pairs`, of centres [G, D] of which some do not exist."""
    near = _distance(other, expanded)

    def over(limit: Array) -> Array:
        excess = jax.nn.relu(near - limit + margin)
        return jnp.sum(jnp.where(exists, excess, 0.0)) / jnp.maximum(jnp.sum(exists), 1)

    fixed = jax.lax.stop_gradient(_distance(own, expanded))
    return over(fixed) + 0.5 * (over(_to_nearest(expanded, exists)) + over(_to_nearest(own, exists)))


def _distance(x: Array, y: Array) -> Array:
    """Euclidean distances of rows [G, D] -> [G], with a finite gradient at zero."""
    return jnp.sqrt(jnp.maximum(paired_distance(x, y, "l2"), 1e-12))


def _to_nearest(centers: Array, exists: Array) -> Array:
    """Distance of every centre [G, D] to the nearest other one that exists: [G]; infinite where there is none."""
    others = exists[None, :] & ~jnp.eye(len(centers), dtype=bool)
    return jnp.min(jnp.where(others, triplet.distances_in_batch(centers), jnp.inf), axis=1)


def copy_orthogonality(second: Array, third: Array) -> Array:
    """Mean over all rows of three copies of the inner product of the second and the third: [N, D], [N, D] -> scalar.

    Parity: N products are divided by the 3 N rows, and the features are not normalised, so the value is large at first.
    """
    products = at_least_float32(second) * at_least_float32(third)
    return jnp.sum(products) / (3 * len(second))
