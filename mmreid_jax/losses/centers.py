"""Losses of centres: learnable ones that pull the features of their class, and those of modalities that shall agree."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mmreid_jax.losses import margins
from mmreid_jax.losses.vectors import Distance, at_least_float32, check_distance, paired_distance

Array = jax.Array


def center_loss(features: Array, labels: Array, centers: Array) -> Array:
    """Mean squared distance of the features to the centre of their class: mean_i |x_i - c_{y_i}|^2.

    Each squared distance is limited to [1e-12, 1e12]. The centres are parameters like any other.
    Reference: Wen et al. 2016, equation 2 (twice its value: no factor 1/2, as in the code of TransReID and of its kin).

    Args:
      features: [B, D].
      labels: int [B], class indices.
      centers: [C, D].

    Returns:
      Scalar.
    """
    difference = at_least_float32(features) - at_least_float32(centers)[labels]
    return jnp.mean(jnp.clip(jnp.sum(jnp.square(difference), axis=-1), 1e-12, 1e12))


def hetero_center_loss(
    features: Sequence[Array] | Array,
    labels: Array | None = None,
    *,
    distance: Distance = "l2",
    margin: float = 0.0,
    grouping: margins.Grouping = "by_label",
    num_identities: int | None = None,
) -> Array:
    """Pulls the modality centres of each identity together.

    With c_a(u) the mean over identity u of the unit features of modality a (not normalised again): sum over modality
    pairs (a, b) and identities u of max(0, d(c_a(u), c_b(u)) - margin).

    Reference: Zhu et al. 2020 (Hetero-Center); over all pairs of three modalities in IEEE (Wang et al. 2022).

    Args:
      features: M arrays [B, D] or one [M, B, D], M >= 2, any length; normalised inside.
      labels: int [B]; not read when the grouping is positional.
      distance: ``l2`` (squared), ``l1`` (mean over dimensions) or ``cos`` (one minus the similarity).
      margin: distance that is close enough.
      grouping: see `margins`.
      num_identities: number of chunks of the positional grouping, static.

    Returns:
      Scalar.

    Raises:
      UserError: a shape or option is wrong, or the batch cannot be cut into `num_identities` chunks.
    """
    unit = margins.unit_features(features)
    return hetero_center(unit, margins.cut(unit, labels, grouping, num_identities), distance, margin)


def hetero_center(features: Array, groups: margins.Groups, distance: Distance = "l2", margin: float = 0.0) -> Array:
    """`hetero_center_loss` of features [M, B, D] as they are, of any length, in given groups."""
    check_distance(distance)
    centers, exists = margins.group_centers(features, groups)
    first, second = margins.modality_pairs(len(features))
    distances = paired_distance(centers[first], centers[second], distance)
    distances = 1.0 - distances if distance == "cos" else distances
    return jnp.sum(jnp.where(exists, jax.nn.relu(distances - margin), 0.0))
