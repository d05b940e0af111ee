"""Batch-hard triplet loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmreid_jax.losses.vectors import at_least_float32, l2_normalise

Array = jax.Array


def batch_hard_triplet(
    features: Array,
    labels: Array,
    margin: float | None = None,
    normalize: bool = False,
    hard_factor: float = 0.0,
    share_ties: bool = False,
) -> tuple[Array, tuple[Array, Array]]:
    """Pulls each sample to its farthest positive and pushes it from its nearest negative in the batch.

    With d_ij = sqrt(max(|x_i - x_j|^2, 1e-12)), ap_i = (1 + h) max d_ij over j of the same identity (i included) and
    an_i = (1 - h) min d_ij over j of other identities: mean_i log(1 + exp(ap_i - an_i)) without a margin, else
    mean_i max(0, ap_i - an_i + margin). The batch may be in any order and identities may differ in size. A batch of one
    identity has no negatives: its loss and gradient are zero. Of equally distant samples the first gets the gradient,
    or with `share_ties` all of them evenly.

    Reference: Hermans et al. 2017, equation 5; hard_factor and the floor under the root as in TransReID, whose code
    needs the same number of samples for every identity.

    Args:
      features: [B, D].
      labels: int [B].
      margin: None for the soft margin.
      normalize: compare features of unit length.
      hard_factor: h above.
      share_ties: as PyTorch does where it takes the maximum of all distances of a row at once (AGW, DDAG); needs the
        gradient of all distances, and has their rounding errors.

    Returns:
      Scalar loss, (ap [B], an [B]); an is 0 where there is no negative.
    """
    features = at_least_float32(features)
    if normalize:
        features = l2_normalise(features)
    same = labels[:, None] == labels[None, :]
    if share_ties:
        distances = distances_in_batch(features)
        positive = jnp.max(jnp.where(same, distances, -jnp.inf), axis=1)
        negative = jnp.min(jnp.where(same, jnp.inf, distances), axis=1)
    else:
        fixed = jax.lax.stop_gradient(features)
        squared = _squared_distances(fixed, fixed)
        # Only the chosen pairs are differentiated: B differences instead of B x B distances, no cancellation in them.
        positive = _distance(features, features[jnp.argmax(jnp.where(same, squared, -jnp.inf), axis=1)])
        negative = _distance(features, features[jnp.argmin(jnp.where(same, jnp.inf, squared), axis=1)])
    has_negative = ~jnp.all(same, axis=1)
    positive = (1.0 + hard_factor) * positive
    negative = (1.0 - hard_factor) * jnp.where(has_negative, negative, 0.0)
    excess = positive - negative
    terms = jax.nn.softplus(excess) if margin is None else jax.nn.relu(excess + margin)
    return jnp.mean(jnp.where(has_negative, terms, 0.0)), (positive, negative)


def distances_in_batch(features: Array) -> Array:
    """Euclidean distances of all pairs of rows: [B, D] -> [B, B].

    On the diagonal stands the 1e-6 that exact arithmetic gives under the floor of the root, not the rounding error of
    |x|^2 + |x|^2 - 2 x.x, which reaches 0.03 in float32 for features as long as a ResNet's; it passes no gradient.
    """
    diagonal = jnp.eye(len(features), dtype=bool)
    # The inner mask keeps the root's infinite gradient at zero away from the outer one.
    squared = _squared_distances(features, features)
    return jnp.where(diagonal, 1e-6, jnp.sqrt(jnp.where(diagonal, 1.0, squared)))


def distances_to(features: Array, others: Array) -> Array:
    """Euclidean distances of every row of one set from every row of another: [B, D], [C, D] -> [B, C]."""
    return jnp.sqrt(_squared_distances(features, others))


def _squared_distances(x: Array, y: Array) -> Array:
    """[B, D], [C, D] -> [B, C] by |x|^2 + |y|^2 - 2 x.y, floored where the root's gradient would explode."""
    products = jnp.matmul(x, y.T, precision="highest")
    return jnp.maximum(jnp.sum(x * x, axis=-1)[:, None] + jnp.sum(y * y, axis=-1)[None, :] - 2.0 * products, 1e-12)


def _distance(x: Array, y: Array) -> Array:
    """[B, D], [B, D] -> [B]."""
    return jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(x - y), axis=-1), 1e-12))
