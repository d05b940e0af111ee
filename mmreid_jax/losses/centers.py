"""Centre loss: learnable class centres that pull the features of their class."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmreid_jax.losses.vectors import at_least_float32

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
