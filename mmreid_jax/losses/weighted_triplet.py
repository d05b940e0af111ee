"""Triplet losses that weigh every positive and negative by its distance instead of choosing the hardest."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmreid_jax.errors import UserError
from mmreid_jax.losses.triplet import distances_in_batch, distances_to
from mmreid_jax.losses.vectors import at_least_float32, l2_normalise

Array = jax.Array

FORMS = ("code", "softmax")
_LARGEST_EXPONENT = 88.0


def weighted_triplet(
    features: Array, labels: Array, *, normalize: bool = False, form: str = "code", others: Array | None = None
) -> tuple[Array, tuple[Array, Array]]:
    """AGW's weighted regularised triplet loss: mean_i log(1 + exp(fp_i - cn_i)), see `weighted_distances`.

    Reference: Ye et al. 2021 (AGW), equation 6; class ``TripletLoss_WRT`` of its code, which TVI-LFM took over.

    Args:
      features: [B, D].
      labels: int [B].
      normalize: compare features of unit length.
      form: of the weights, see `weighted_distances`.
      others: compare with these features [B, D] of the same labels, not with one another.

    Returns:
      Scalar loss, (fp [B], cn [B]).
    """
    positive, negative = weighted_distances(features, labels, normalize=normalize, form=form, others=others)
    return jnp.mean(jax.nn.softplus(positive - negative)), (positive, negative)


def squared_difference_triplet(
    features: Array,
    labels: Array,
    *,
    alpha: float = 1.0,
    gamma: float = 1.0,
    square: bool = True,
    form: str = "code",
) -> tuple[Array, tuple[Array, Array]]:
    """CAJ's enhanced squared difference: mean_i log(1 + exp(s_i q_i)), q_i = min(gamma (fp_i - cn_i)^2, 88).

    s_i is 1 where fp_i > cn_i and else -1. Parity: where the two are equal the gradient vanishes. Without `square`:
    mean_i log(1 + exp(gamma (fp_i - cn_i))).

    Reference: Ye et al. 2021 (CAJ), equation 10; class ``TripletLoss_ADP`` of its code.

    Args:
      features: [B, D].
      labels: int [B].
      alpha: factor on the distances in the weights alone.
      gamma: factor on the difference.
      square: see above.
      form: of the weights, see `weighted_distances`.

    Returns:
      Scalar loss, (fp [B], cn [B]).
    """
    positive, negative = weighted_distances(features, labels, alpha=alpha, form=form)
    difference = positive - negative
    if not square:
        return jnp.mean(jax.nn.softplus(gamma * difference)), (positive, negative)
    size = jnp.minimum(gamma * jnp.square(difference), _LARGEST_EXPONENT)
    return jnp.mean(jax.nn.softplus(jnp.where(difference > 0, size, -size))), (positive, negative)


def weighted_distances(
    features: Array,
    labels: Array,
    *,
    alpha: float = 1.0,
    normalize: bool = False,
    form: str = "code",
    others: Array | None = None,
) -> tuple[Array, Array]:
    """Weighted mean distances of every sample to its positives (itself included) and to its negatives.

    fp_i = sum_j w+_ij d_ij and cn_i = sum_j w-_ij d_ij, with w+ a softmax of alpha d over the positives and w- one of
    -alpha d over the negatives. Gradients flow through the weights. ``code`` adds 1e-6 to the sums of both softmaxes
    and shifts by the largest positive distance. Parity: negatives are not shifted, so that their weights fall towards 0
    where all are farther than about 14 / alpha, and the negative distance with them. ``softmax`` computes what the
    equations say at any distance; a sample without negatives then has cn = 0, too.

    Args:
      features: [B, D].
      labels: int [B].
      alpha: factor on the distances in the weights.
      normalize: compare features of unit length.
      form: "code" or "softmax".
      others: compare with these features [B, D] of the same labels, not with one another.

    Returns:
      (fp [B], cn [B]).

    Raises:
      UserError: there is no such form.
    """
    if form not in FORMS:
        raise UserError(f"unknown form {form!r} of the triplet's weights; choose one of {', '.join(FORMS)}")
    vectors = [at_least_float32(x) for x in (features, others) if x is not None]
    vectors = [l2_normalise(x) for x in vectors] if normalize else vectors
    distances = distances_in_batch(*vectors) if others is None else distances_to(*vectors)
    same = labels[:, None] == labels[None, :]
    positive, negative = alpha * distances, -alpha * distances
    if form == "softmax":
        some = jnp.any(~same, axis=1, keepdims=True)
        near = jax.nn.softmax(jnp.where(same, positive, -jnp.inf), axis=1)
        # Where there is no negative a softmax of infinities would be NaN, and so would be its gradient.
        far = jnp.where(same, 0.0, jax.nn.softmax(jnp.where(same & some, -jnp.inf, negative), axis=1))
        return jnp.sum(near * distances, axis=1), jnp.sum(far * distances, axis=1)
    shift = jnp.max(jnp.where(same, positive, 0.0), axis=1, keepdims=True)
    # The shift is taken off inside of the mask: beyond it a large difference could overflow.
    near = jnp.where(same, jnp.exp(jnp.where(same, positive - shift, 0.0)), 0.0)
    far = jnp.where(same, 0.0, jnp.exp(negative))
    near = near / (jnp.sum(near, axis=1, keepdims=True) + 1e-6)
    far = far / (jnp.sum(far, axis=1, keepdims=True) + 1e-6)
    return jnp.sum(near * distances, axis=1), jnp.sum(far * distances, axis=1)
