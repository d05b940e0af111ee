"""Channel augmentations of visible-infrared ReID, on the device: a picture is shown in the grey of one of its channels.

Infrared pictures have one channel. What a network learns of visible ones carries over better when it also sees them
without their colours, each time in another way. Images are float [B, H, W, 3], normalised (the references mix channels
after normalisation, too); what happens to each is an integer, drawn by `draw_exchange` or `draw_adaptive_grey`.

Reference: Ye et al. 2021, "Channel Augmented Joint Learning for Visible-Infrared Recognition" (CAJ), section 3.1;
`ChannelExchange`, `ChannelAdap` and `ChannelAdapGray` of its code.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

GREY, UNCHANGED = 3, 4
"""Choices beside 0, 1 and 2, which copy that channel to all three."""
LUMA = (0.2989, 0.5870, 0.1140)


def exchange(images: Array, choice: Array) -> Array:
    """Every image without its colours, as visible training images are augmented.

    Args:
      images: float [B, H, W, 3].
      choice: int [B], 0 to 2 for that channel, GREY for the weighted mean of the channels.

    Returns:
      [B, H, W, 3] of the same type, three equal channels.
    """
    choice = choice[:, None, None, None]
    copied = jnp.take_along_axis(images, jnp.minimum(choice, 2), axis=3)
    grey = jnp.sum(images * jnp.asarray(LUMA, images.dtype), axis=3, keepdims=True)
    return jnp.broadcast_to(jnp.where(choice == GREY, grey, copied), images.shape)


def adaptive_grey(images: Array, choice: Array) -> Array:
    """The same, but an image may stay as it is, as infrared training images are augmented.

    (TVI-LFM's `ChannelExchange` leaves half of the visible ones as they are; this function serves it, too.)

    Args:
      images: float [B, H, W, 3].
      choice: int [B], as for `exchange`, or UNCHANGED.
    """
    return jnp.where(choice[:, None, None, None] == UNCHANGED, images, exchange(images, choice))


def draw_exchange(key: Array, batch: int, *, grey: bool = False, share: float = 1.0) -> Array:
    """int32 [batch]: channel 0, 1 or 2 (with `grey` also GREY), equally likely; UNCHANGED beyond a `share` of images.

    CAJ's code has the grey option, and leaves it switched off. TVI-LFM changes half of the images.
    """
    choice = jax.random.randint(key, (batch,), 0, GREY + 1 if grey else GREY)
    changed = jax.random.bernoulli(jax.random.fold_in(key, 1), float(share), (batch,))
    return jnp.where(changed, choice, UNCHANGED)


def draw_adaptive_grey(key: Array, batch: int, *, grey: float = 0.5) -> Array:
    """int32 [batch]: channel 0, 1 or 2 with probability 1/4 each; of the rest a share `grey` GREY, else UNCHANGED.

    `grey=0` is the references' `ChannelAdap`.
    """
    first, second = jax.random.split(key)
    choice = jax.random.randint(first, (batch,), 0, GREY + 1)
    kept = ~jax.random.bernoulli(second, float(grey), (batch,))
    return jnp.where((choice == GREY) & kept, UNCHANGED, choice)
