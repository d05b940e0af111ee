"""Losses that pull predictions towards those of a teacher."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmreid_jax.losses.vectors import at_least_float32

Array = jax.Array


def softened_divergence(logits: Array, teacher: Array, temperature: float = 3.0) -> Array:
    """T^2 times the Kullback-Leibler divergence of softened predictions from a teacher's, averaged over the batch.

    mean_i sum_c t_ic (log t_ic - log softmax(logits_i / T)_c) with t = softmax(teacher / T) + 1e-7, which gets no
    gradient. Reference: Hinton et al. 2015; class ``KLDivLoss`` of CAJ's code.

    Args:
      logits: [B, C].
      teacher: [B, C].
      temperature: T above.
    """
    target = jax.nn.softmax(at_least_float32(jax.lax.stop_gradient(teacher)) / temperature, axis=-1) + 1e-7
    predicted = jax.nn.log_softmax(at_least_float32(logits) / temperature, axis=-1)
    return temperature**2 * jnp.mean(jnp.sum(target * (jnp.log(target) - predicted), axis=-1))
