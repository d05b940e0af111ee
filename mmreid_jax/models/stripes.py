"""Images cut into horizontal stripes in another order, and the heads that say which order it was (MMGL).

Reference: Wan et al., Self-Supervised Modality-Aware Multiple Granularity Pre-Training for RGB-Infrared Person
Re-Identification (MMGL), arXiv 2112.06147, method figure; its authors released no code of this part. What the figure
leaves open is told in ``docs/mmgl.md``.
"""

from __future__ import annotations

import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmreid_jax.errors import UserError
from mmreid_jax.models.layers import Linear, TorchBatchNorm

Array = jax.Array
Head = Literal["conv_bn_relu", "conv"]
HEADS: tuple[Head, ...] = ("conv_bn_relu", "conv")


def shuffle(images: Array, orders: Array) -> Array:
    """Cuts every image into stripes of equal height and puts them together in its order, without gaps.

    Args:
      images: [B, H, W, C].
      orders: int [B, S]; stripe i of the result is stripe ``orders[b, i]`` of the image.

    Returns:
      [B, H, W, C].

    Raises:
      UserError: S does not divide H.
    """
    return joined(jnp.take_along_axis(cut(images, orders.shape[1]), orders[:, :, None, None, None], axis=1))


def cut(images: Array, stripes: int) -> Array:
    """The stripes of images: [B, H, W, C] -> [B, S, H / S, W, C]; `UserError` where S does not divide H."""
    batch, height, *rest = images.shape
    if height % stripes:
        raise UserError(
            f"images of {height} rows cannot be cut into {stripes} stripes of equal height; change"
            " config.data.image_size or config.model.stripes"
        )
    return images.reshape(batch, stripes, height // stripes, *rest)


def joined(pieces: Array) -> Array:
    """Stripes put together: [B, S, h, W, C] -> [B, S * h, W, C]."""
    batch, stripes, height, *rest = pieces.shape
    return pieces.reshape(batch, stripes * height, *rest)


def without_borders(images: Array, stripes: int, rows: int) -> Array:
    """Every stripe without its outermost rows, stretched to its height again: no edge goes on across a cut.

    Args:
      images: [B, H, W, C].
      stripes: S; divides H.
      rows: taken off at the top and at the bottom of every stripe.

    Returns:
      [B, H, W, C].

    Raises:
      UserError: nothing of a stripe would be left.
    """
    pieces = cut(images, stripes)
    height = pieces.shape[2]
    if not 0 <= 2 * rows < height:
        raise UserError(
            f"config.model.stripe_gap is {rows}, but stripes are {height} rows high; choose from 0 to "
            f"{(height - 1) // 2}"
        )
    inner = pieces[:, :, rows : height - rows]
    return joined(jax.image.resize(inner, pieces.shape, "linear")) if rows else images


class OrderHead(nn.Module):
    """Global feature -> logits of the permutation matrix: which original stripe (column) stands where (row).

    Attributes:
      stripes: S.
      hidden: width of a hidden layer with ReLU; 0: a single linear layer.
    """

    stripes: int
    hidden: int = 0

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """[N, C] -> [N, S, S]."""
        x = features
        if self.hidden:
            x = nn.relu(Linear(self.hidden, name="fc1")(x))
        x = Linear(self.stripes**2, name="fc2" if self.hidden else "fc1")(x)
        return x.reshape(-1, self.stripes, self.stripes)


class Projection(nn.Module):
    """A 1x1 convolution of pooled stripes, with batch norm and ReLU or without."""

    features: int
    head: Head = "conv_bn_relu"

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[..., C] -> [..., features]."""
        init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
        x = nn.Dense(self.features, kernel_init=init, name="conv")(x)
        if self.head == "conv":
            return x
        return nn.relu(TorchBatchNorm(name="norm")(x, train))


class Projections(nn.Module):
    """A projection for every stripe, their parameters stacked on a leading axis, or one for all.

    Attributes:
      features: of a projected stripe.
      head: "conv_bn_relu" or "conv".
      shared: one projection for all positions, whose batch norm sees the stripes of all positions together.
    """

    features: int = 256
    head: Head = "conv_bn_relu"
    shared: bool = False

    @nn.compact
    def __call__(self, stripes: Array, train: bool) -> Array:
        """[N, S, C] -> [N, S, features]."""
        if self.shared:
            return Projection(self.features, self.head, name="all")(stripes, train)
        per_stripe = functools.partial(
            nn.vmap, variable_axes={"params": 0, "batch_stats": 0}, split_rngs={"params": True}, out_axes=1
        )
        return per_stripe(Projection, in_axes=(1, None))(self.features, self.head, name="each")(stripes, train)
