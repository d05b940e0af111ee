"""RLE's two random linear enhancements of images, on the device: as `mmreid_jax.data.enhancement` has drawn them.

Reference: Tan et al., RLE: A Unified Perspective of Data Augmentation for Cross-Spectral Re-identification, NeurIPS
2024; classes ``Moderate_RLE`` and ``Radical_RLE`` of the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array

LEAST = 0.1
"""Where a part of an image has been scaled to less than this, no further rectangle is."""


def enhance(images: Array, drawn: Mapping[str, Array]) -> Array:
    """Both enhancements, the moderate one first, of float [B, H, W, 3] in 0 to 1; see `data.enhancement.draw`."""
    if "weights" in drawn:
        images = moderate(images, drawn["weights"])
    if "rectangles" in drawn:
        images = radical(images, drawn["rectangles"], drawn["factors"])
    return images


def moderate(images: Array, weights: Array) -> Array:
    """Images in a weighted grey.

    Args:
      images: float [B, H, W, 3].
      weights: [B, 3] of the channels; all 0 for an image that stays as it is.

    Returns:
      [B, H, W, 3].
    """
    red, green, blue = (images[..., i] * weights[:, None, None, i].astype(images.dtype) for i in range(3))
    grey = jnp.broadcast_to((red + green + blue)[..., None], images.shape)
    return jnp.where(jnp.any(weights > 0, axis=1)[:, None, None, None], grey, images)


def radical(images: Array, rectangles: Array, factors: Array) -> Array:
    """Images whose rectangles are scaled, each channel so that its brightest value there becomes a factor.

    One rectangle after the other, until some value has been scaled to less than `LEAST` by all of them together. A
    channel that is black all over a rectangle stays so there and counts as unscaled; the authors' code divides by its
    brightest value, which is 0, and gives NaN.

    Args:
      images: float [B, H, W, 3], not negative.
      rectangles: int32 [B, K, 4], top, left, height, width; height 0 is passed over.
      factors: [B, K, 3].

    Returns:
      [B, H, W, 3].
    """
    count, (height, width) = rectangles.shape[1], images.shape[1:3]
    chosen = jnp.any(rectangles[..., 2] > 0, axis=1)
    first: tuple[Array, ...] = (jnp.zeros((), jnp.int32), images, jnp.ones_like(images), chosen)

    def goes_on(state: tuple[Array, ...]) -> Array:
        number, _, _, active = state
        return (number < count) & jnp.any(active)

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        number, images, scaled, active = state
        rectangle, factor = (jax.lax.dynamic_index_in_dim(x, number, 1, keepdims=False) for x in (rectangles, factors))
        inside = within(rectangle, height, width)[..., None] & active[:, None, None, None]
        brightest = jnp.max(jnp.where(inside, images, 0.0), axis=(1, 2), keepdims=True)
        changed = inside & (brightest > 0)
        inverse = 1.0 / jnp.where(brightest > 0, brightest, 1.0)
        factor = factor[:, None, None, :].astype(images.dtype)
        # In this order, as the reference rounds.
        images, scaled = (jnp.where(changed, (x * inverse) * factor, x) for x in (images, scaled))
        return number + 1, images, scaled, active & (jnp.min(scaled, axis=(1, 2, 3)) >= LEAST)

    final: tuple[Any, ...] = jax.lax.while_loop(goes_on, step, first)
    return jnp.asarray(final[1])


def within(rectangles: Array, height: int, width: int) -> Array:
    """Which pixels lie in rectangles int32 [B, 4] of top, left, height and width: bool [B, H, W]."""
    rows, columns = jnp.arange(height)[None, :], jnp.arange(width)[None, :]
    top, left, tall, wide = (rectangles[:, i : i + 1] for i in range(4))
    inside_rows, inside_columns = (rows >= top) & (rows < top + tall), (columns >= left) & (columns < left + wide)
    return inside_rows[:, :, None] & inside_columns[:, None, :]
