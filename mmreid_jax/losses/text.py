"""Losses between the features of images and of what is said of them; all optional in TVI-LFM, whose scripts use none.

Features are of any length; only their directions count. Reference: ``objectives`` of TVI-LFM's code (NeurIPS 2024).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmreid_jax.losses.vectors import at_least_float32, l2_normalise

Array = jax.Array


def cosines(a: Array, b: Array) -> Array:
    """Cosines of all pairs: [N, D], [M, D] -> [N, M]."""
    a, b = (l2_normalise(at_least_float32(x)) for x in (a, b))
    return jnp.matmul(a, b.T, precision="highest")


def orthogonality(a: Array, b: Array) -> tuple[Array, Array]:
    """Mean and sum of |cos(a_i, b_j)| over all pairs of [N, D] and [M, D]: ``orth`` and ``orth2``.

    Between an infrared feature and what the visible text adds to the infrared one, it asks for what the image lacks.
    """
    absolute = jnp.abs(cosines(a, b))
    return jnp.mean(absolute), jnp.sum(absolute)


def similarity_transfer(learner: Array, teacher: Array, anchors: Array, scale: Array | float) -> Array:
    """Makes one kind of features as similar to anchors as another kind is: ``I2T_Regular``, ``T2I_Regular``.

    -mean_i sum_j t_ij log softmax_j(s cos(learner_i, anchor_j)) with t_i the softmax over j of s cos(teacher_i,
    anchor_j), which gets no gradient.

    Args:
      learner: [N, D].
      teacher: [N, D].
      anchors: [M, D].
      scale: s above.
    """
    target = jax.nn.softmax(jax.lax.stop_gradient(scale * cosines(teacher, anchors)), axis=-1)
    predicted = jax.nn.log_softmax(scale * cosines(learner, anchors), axis=-1)
    return -jnp.mean(jnp.sum(target * predicted, axis=-1))


def image_to_text(images: Array, texts: Array, scale: Array | float) -> Array:
    """Every image shall be most similar to its own text: cross-entropy over the texts of the batch, [N, D] each.

    Parity: the mean is over the N x N entries of the target, so that the loss is an N-th of CLIP's.
    """
    predicted = jax.nn.log_softmax(scale * cosines(images, texts), axis=1)
    return -jnp.mean(jnp.diagonal(predicted)) / len(predicted)


def text_to_image(images: Array, texts: Array, labels: Array, scale: Array | float) -> Array:
    """Every text shall be similar to all images of its identity.

    -sum_j (S / N^2) / |P_j| with S = sum_ij [i in P_j] log softmax_i(s cos(image_i, text_j)), P_j the images with the
    label of text j; sum_j 1 / |P_j| is the number of identities. Where all identities have the same number of images
    that is the mean over texts of the mean over their images.

    Parity: the released function divides one mean over all N x N pairs by each text's number of images and returns the
    N quotients, whose sum this is; an identity of many images weighs more than one of few.

    Args:
      images: [N, D].
      texts: [N, D].
      labels: int [N], of both.
      scale: s above.
    """
    predicted = jax.nn.log_softmax(scale * cosines(images, texts), axis=0)
    same = (labels[:, None] == labels[None, :]).astype(predicted.dtype)
    return -jnp.mean(predicted * same) * jnp.sum(1.0 / jnp.sum(same, axis=0))
