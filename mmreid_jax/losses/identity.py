"""Identity classification: cross-entropy, and classifier heads with a margin."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from mmreid_jax.losses.vectors import at_least_float32, l2_normalise

Array = jax.Array


def cross_entropy(logits: Array, labels: Array, smoothing: float = 0.0) -> Array:
    """Softmax cross-entropy, averaged over the batch, of one classifier or of each of several.

    The target of a sample is (1 - smoothing) on its class plus smoothing / C on every class.
    Reference: Szegedy et al. 2016, section 7 (label smoothing).

    Args:
      logits: [..., B, C]; leading axes are classifiers.
      labels: int [B], class indices.
      smoothing: 0 for hard targets; 0.1 is usual.

    Returns:
      [...]: a scalar for one classifier.
    """
    log_probabilities = jax.nn.log_softmax(at_least_float32(logits), axis=-1)
    index = jnp.broadcast_to(labels[:, None], (*log_probabilities.shape[:-1], 1))
    # A label that is no class gives NaN here, which stops a run; with one-hot targets it would count as a loss of 0.
    of_class = jnp.take_along_axis(log_probabilities, index, axis=-1, mode="fill")[..., 0]
    of_all = jnp.mean(log_probabilities, axis=-1)
    return -jnp.mean((1.0 - smoothing) * of_class + smoothing * of_all, axis=-1)


def accuracy(logits: Array, labels: Array) -> Array:
    """Share of samples whose largest logit is that of their class: [..., B, C], int [B] -> [...] in [0, 1]."""
    hits = jnp.argmax(logits, axis=-1) == labels
    return jnp.mean(hits.astype(jnp.result_type(float)), axis=-1)


def cosine_logits(features: Array, weight: Array) -> Array:
    """Cosine of every feature with every class vector: [B, D], [D, C] -> [B, C] in [-1, 1]."""
    features = l2_normalise(at_least_float32(features))
    classes = l2_normalise(at_least_float32(weight).T)
    return jnp.matmul(features, classes.T, precision="highest")


def arcface_logits(features: Array, weight: Array, labels: Array, scale: float = 30.0, margin: float = 0.3) -> Array:
    """Logits with an additive angular margin: scale * cos(theta + margin) on the class of the sample.

    Where theta + margin would pass pi, cos(theta) - margin * sin(margin) is used instead, which keeps falling.
    Reference: Deng et al. 2019 (ArcFace), equation 3; defaults and the continuation as in TransReID.

    Args:
      features: [B, D], any length.
      weight: [D, C], class vectors in columns, any length.
      labels: int [B].
      scale: length that the unit features are given.
      margin: angle in radians.

    Returns:
      [B, C], to be given to `cross_entropy`; the other classes have scale * cos(theta).
    """
    cosine = cosine_logits(features, weight)
    # The floor keeps the gradient finite where a feature lies on its class vector.
    sine = jnp.sqrt(jnp.maximum(1.0 - cosine * cosine, 1e-12))
    moved = cosine * math.cos(margin) - sine * math.sin(margin)
    moved = jnp.where(cosine > math.cos(math.pi - margin), moved, cosine - margin * math.sin(math.pi - margin))
    return scale * jnp.where(_one_hot(labels, cosine), moved, cosine)


def cosface_logits(features: Array, weight: Array, labels: Array, scale: float = 30.0, margin: float = 0.3) -> Array:
    """Logits with an additive cosine margin: scale * (cos(theta) - margin) on the class of the sample.

    Reference: Wang et al. 2018 (CosFace), equation 4. Arguments and result as in `arcface_logits`.
    """
    cosine = cosine_logits(features, weight)
    return scale * jnp.where(_one_hot(labels, cosine), cosine - margin, cosine)


def circle_logits(features: Array, weight: Array, labels: Array, scale: float = 256.0, margin: float = 0.25) -> Array:
    """Logits of the circle loss, each similarity weighted by its distance from where it should be.

    With s = cos(theta): on the class of the sample scale * a_p * (s - (1 - margin)), a_p = max(0, 1 + margin - s);
    elsewhere scale * a_n * (s - margin), a_n = max(0, s + margin). No gradient flows through a_p and a_n.
    Reference: Sun et al. 2020 (Circle Loss), equations 5, 6 and 8. Arguments and result as in `arcface_logits`.
    """
    cosine = cosine_logits(features, weight)
    fixed = jax.lax.stop_gradient(cosine)
    of_class = jnp.maximum(1.0 + margin - fixed, 0.0) * (cosine - (1.0 - margin))
    of_others = jnp.maximum(fixed + margin, 0.0) * (cosine - margin)
    return scale * jnp.where(_one_hot(labels, cosine), of_class, of_others)


def _one_hot(labels: Array, logits: Array) -> Array:
    return labels[:, None] == jnp.arange(logits.shape[-1])
