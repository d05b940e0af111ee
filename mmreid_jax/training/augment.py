"""The host's image transforms on the device, for images that lie there: the same pixels, bit for bit.

The host draws what happens to an image and sends that instead of the pixels (``augment`` in
`mmreid_jax.data.pipeline`). Everything here is integer arithmetic or one float operation per pixel, because a compiler
may round two of them differently from numpy; what needs more is a table of 256 values that the host made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
Held = Mapping[str, Any]
"""``images`` uint8 [N, H, W, 3]; where images may be enlarged ``enlarge``: {"rows", "columns"}, each (pixels, weights)
int32 [L, T] of the enlarged height and width, see `mmreid_jax.data.transforms.enlarging_taps`."""
LUMA = (19595, 38470, 7471)
"""Pillow's integer weights of red, green and blue, in units of 2^-16 (ITU-R 601-2)."""
LARGEST = 2**22
"""Pixels of an image up to which the sum of its luma fits into 32 bits."""
RESIZE_BITS = 22
"""Digits after the point of the weights of an enlargement."""
TURN_BITS = 16
"""Digits after the point of the coefficients that turn a patch."""


def gather(batch: Mapping[str, Any], held: Held | None) -> dict[str, Any]:
    """The batch with images in place of the choices that name them; a batch that brings its images passes unchanged.

    Args:
      batch: see `mmreid_jax.data.pipeline`.
      held: what lies on the devices; needed where the batch holds ``augment``.
    """
    if "augment" not in batch:
        return dict(batch)
    if held is None:
        raise ValueError("a batch that names images on the device needs these images")
    images = {name: augmented(held, choices) for name, choices in batch["augment"].items()}
    return {**{name: value for name, value in batch.items() if name != "augment"}, "images": images}


def augmented(held: Held, choices: Mapping[str, Array]) -> Array:
    """The chosen images uint8 [B, H, W, 3], changed as drawn; the order is that of `transforms.apply` on the host."""
    images = held["images"].at[choices["row"]].get(mode="clip")
    if "mirrored" in choices:
        images = where(choices["mirrored"], images[:, :, ::-1], images)
    if "shift" in choices:
        images = shift(images, choices["shift"])
    if "enlarged" in choices:
        chosen, corner = choices["enlarged"][:, 0] == 1, choices["enlarged"][:, 1:]
        images = where(chosen, enlarge(images, corner, held["enlarge"]), images)
    if "patch" in choices:
        images = paste(images, held["images"].at[choices["patch_row"]].get(mode="clip"), choices["patch"])
    if "contrast" in choices:
        images = change_light(images, choices["brightness"], choices["contrast"], choices["contrast_first"])
    if "grey" in choices:
        greyscale = jnp.broadcast_to(luma(images)[..., None], images.shape).astype(jnp.uint8)
        images = where(choices["grey"], greyscale, images)
    return images


def where(chosen: Array, images: Array, others: Array) -> Array:
    """For each of B samples one of two images [B, H, W, 3]."""
    return jnp.where(chosen[:, None, None, None], images, others)


def shift(images: Array, by: Array) -> Array:
    """Moves images [B, H, W, 3] down and to the right within their frames, by int32 [B, 2] pixels; zeros come in."""

    def inside(length: int, moved: Array) -> Array:
        source = jnp.arange(length) - moved[:, None]
        return (source >= 0) & (source < length)

    kept = inside(images.shape[1], by[:, 0])[:, :, None] & inside(images.shape[2], by[:, 1])[:, None, :]
    moved = jax.vmap(lambda image, offset: jnp.roll(image, offset, (0, 1)))(images, by)
    return jnp.where(kept[..., None], moved, 0)


def enlarge(images: Array, corner: Array, taps: Mapping[str, tuple[Array, Array]]) -> Array:
    """Cuts [H, W] out of the enlarged images, from row and column `corner` int32 [B, 2] on.

    Pillow's resize of uint8 [B, H, W, 3]: first along the rows of pixels, rounded to uint8, then along the columns.
    Only what is cut out is computed.
    """

    def cut(image: Array, start: Array) -> Array:
        for axis, name in ((1, "columns"), (0, "rows")):
            pixels, weights = (
                jax.lax.dynamic_slice_in_dim(table, start[axis], image.shape[axis], axis=0) for table in taps[name]
            )
            total = jnp.full(image.shape, 1 << (RESIZE_BITS - 1), jnp.int32)
            for t in range(pixels.shape[1]):
                weight = jnp.expand_dims(weights[:, t], (1 - axis, 2))
                total += weight * jnp.take(image, pixels[:, t], axis, mode="clip").astype(jnp.int32)
            image = jnp.clip(total >> RESIZE_BITS, 0, 255).astype(jnp.uint8)
        return image

    return jax.vmap(cut)(images, corner)


def paste(images: Array, sources: Array, patches: Array) -> Array:
    """Pastes a piece of each source on an image, turned and mirrored.

    Args:
      images: uint8 [B, H, W, 3].
      sources: likewise, of the same size.
      patches: int32 [B, 13], see `mmreid_jax.data.patches.draw`.
    """

    def pasted(image: Array, source: Array, patch: Array) -> Array:
        height, width, top, left, from_top, from_left, mirrored, a, b, c, d, e, f = patch
        v, u = jnp.arange(image.shape[0])[:, None] - top, jnp.arange(image.shape[1])[None, :] - left
        column, row = (a * u + b * v + c) >> TURN_BITS, (d * u + e * v + f) >> TURN_BITS
        covered = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        column = jnp.where(mirrored == 1, width - 1 - column, column)
        piece = source.at[from_top + row, from_left + column].get(mode="clip")
        inside = (v >= 0) & (v < height) & (u >= 0) & (u < width)
        return jnp.where(inside[..., None], jnp.where(covered[..., None], piece, 0), image)

    return jax.vmap(pasted)(images, sources, patches)


def change_light(images: Array, brightness: Array, products: Array, contrast_first: Array) -> Array:
    """Brightness and contrast of uint8 [B, H, W, 3], in the order drawn.

    Args:
      images: of at most LARGEST pixels each.
      brightness: uint8 [B, 256], the new value of each value.
      products: float32 [B, 256], factor of the contrast times a distance from the mean grey.
      contrast_first: bool [B].
    """

    def contrast_values(images: Array) -> Array:
        pixels = images.shape[1] * images.shape[2]
        # The mean, rounded half up, without leaving the integers.
        mean = (2 * luma(images).sum(axis=(1, 2)) + pixels) // (2 * pixels)
        distance = jnp.arange(256) - mean[:, None]
        size = jnp.take_along_axis(products, jnp.abs(distance), axis=1)
        changed = mean[:, None].astype(jnp.float32) + jnp.where(distance < 0, -size, size)
        return jnp.clip(changed, 0, 255).astype(jnp.uint8)

    look_up = jax.vmap(lambda values, image: values[image.astype(jnp.int32)])
    first = jnp.where(contrast_first[:, None], contrast_values(images), brightness)
    images = look_up(first, images)
    second = jnp.where(contrast_first[:, None], brightness, contrast_values(images))
    return look_up(second, images)


def luma(images: Array) -> Array:
    """int32 [...] of uint8 [..., 3]: 0.299 R + 0.587 G + 0.114 B as Pillow rounds it."""
    red, green, blue = (weight * images[..., i].astype(jnp.int32) for i, weight in enumerate(LUMA))
    return (red + green + blue + 0x8000) >> 16
