"""The network of DEEN: stages of a ResNet that take something from the map before them, and an expanded embedding.

Reference: Zhang and Wang, Diverse Embedding Expansion Network and Low-Light Cross-Modality Benchmark for
Visible-Infrared Person Re-identification, CVPR 2023; classes ``CNL``, ``PNL``, ``MFA_block`` and ``DEE_module`` of the
authors' code, which is followed where the paper differs.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmreid_jax.errors import UserError
from mmreid_jax.models.layers import Conv, Linear, TorchBatchNorm
from mmreid_jax.models.resnet import ResNet
from mmreid_jax.models.two_stream import TwoStream

Array = jax.Array
Dtype = Any

BRANCHES = (1, 2)
"""Numbers of the branches that the expansion adds."""
COPIES = 1 + len(BRANCHES)
"""Maps of every image after the expansion."""
DILATIONS = (1, 2, 3)


def attend_channels(theta: Array, phi: Array, g: Array) -> Array:
    """Every channel takes something from all: ``y = (theta^T phi / C) g`` without a softmax.

    Args:
      theta, phi: [B, M, C], over the same M positions.
      g: [B, L, C].

    Returns:
      [B, L, C].
    """
    return g @ (jnp.swapaxes(phi, 1, 2) @ theta / g.shape[-1])


def attend_positions(theta: Array, phi: Array, g: Array) -> Array:
    """Every position takes something from all of another map, two at a time, without a softmax.

    Position m of the first half of a map (row by row) and position m of its second half are one point with the
    channels of both: with M/2 points of 2 C channels ``y = (theta phi^T / (L/2)) g``. The matrix of all pairs of points
    is never made where the product ``phi^T g`` takes fewer operations.

    Parity: the authors' code views the [C, M] numbers of a map as 2 C rows of M/2, which the paper's figure does not
    show.

    Args:
      theta: [B, M, C], M even.
      phi, g: [B, L, C], L even.

    Returns:
      [B, M, C].
    """
    theta, phi, g = map(_in_pairs, (theta, phi, g))
    (_, points, width), others = theta.shape, phi.shape[1]
    if width * (points + others) < 2 * points * others:
        y = theta @ (jnp.swapaxes(phi, 1, 2) @ g / others)
    else:
        y = (theta @ jnp.swapaxes(phi, 1, 2) / others) @ g
    batch = y.shape[0]
    return jnp.swapaxes(y.reshape(batch, points, 2, -1), 1, 2).reshape(batch, 2 * points, -1)


def _in_pairs(maps: Array) -> Array:
    """[B, M, C] -> [B, M/2, 2 C], a position of the first half with that of the second."""
    batch, positions, channels = maps.shape
    return jnp.swapaxes(maps.reshape(batch, 2, positions // 2, channels), 1, 2).reshape(batch, positions // 2, -1)


class ChannelAttention(nn.Module):
    """``high + BN(W y)``, ``y`` the channels of the lower map weighed by the higher one (`attend_channels`).

    The similarity is divided by the number of channels and not of positions, so it grows with the image. The scale of
    the normalisation starts at zero and the block as the identity.
    """

    @nn.compact
    def __call__(self, high: Array, low: Array, train: bool) -> Array:
        """[B, h, w, C], [B, H, W, c] -> [B, h, w, C]; the map `low` is as large as `high` or twice as large."""
        stride = 1 if high.shape[1:3] == low.shape[1:3] else 2
        # W has a stride, too: what it leaves out of y need not be made.
        low = low[:, ::stride, ::stride]
        width = low.shape[-1]
        theta = Linear(width, name="theta")(_positions(high))
        phi, g = (Linear(width, name=name)(_positions(low)) for name in ("phi", "g"))
        return _residual(high, attend_channels(theta, phi, g), train)


class PositionAttention(nn.Module):
    """``high + BN(W y)``, ``y`` the positions of the lower map weighed by the higher one (`attend_positions`).

    The scale of the normalisation starts at zero and the block as the identity.
    """

    @nn.compact
    def __call__(self, high: Array, low: Array, train: bool) -> Array:
        """[B, h, w, C], [B, H, W, c] -> [B, h, w, C]; both maps have an even number of positions."""
        width = low.shape[-1] // 2
        theta = Linear(width, name="theta")(_positions(high))
        phi, g = (Linear(width, name=name)(_positions(low)) for name in ("phi", "g"))
        return _residual(high, attend_positions(theta, phi, g), train)


def _positions(maps: Array) -> Array:
    """[B, H, W, C] -> [B, H * W, C] in at least float32: the attention is cubic in what it gets."""
    return maps.astype(jnp.promote_types(maps.dtype, jnp.float32)).reshape(maps.shape[0], -1, maps.shape[-1])


def _residual(high: Array, y: Array, train: bool) -> Array:
    """``high + BN(W y)`` for [B, h, w, C] and [B, h * w, c]; to be called in a compact method."""
    y = Linear(high.shape[-1], name="expand")(y).reshape(high.shape)
    return high + TorchBatchNorm(scale_init=nn.initializers.zeros, name="norm")(y, train).astype(high.dtype)


class Aggregation(nn.Module):
    """Multi-stage feature aggregation: a map takes something from the one before it, by channels, then by positions.

    Reference: section 3.3 of the paper.
    """

    @nn.compact
    def __call__(self, high: Array, low: Array, train: bool) -> Array:
        """[B, h, w, C], [B, H, W, c] -> [B, h, w, C]."""
        high = ChannelAttention(name="channels")(high, low, train)
        return PositionAttention(name="positions")(high, low, train)


class Expansion(nn.Module):
    """Diverse embedding expansion: maps, and two more of each that branches of dilated convolutions make of them.

    Reference: section 3.2 of the paper.

    Attributes:
      dropout: share of all numbers, of the given maps as well, that are dropped in training.
      dtype: type of the computation (None: that of parameters and maps).
    """

    dropout: float = 0.01
    dtype: Dtype = None

    @nn.compact
    def __call__(self, maps: Array, train: bool) -> Array:
        """[N, h, w, C] -> [3 N, h, w, C]: all maps, all of the first branch, all of the second.

        With `train` and a dropout there must be a random key named ``dropout``, else nothing is dropped.
        """
        copies = jnp.concatenate([maps, *(_Branch(self.dtype, name=f"branch{n}")(maps) for n in BRANCHES)])
        if not (train and self.dropout and self.has_rng("dropout")):
            return copies
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - self.dropout, copies.shape)
        return jnp.where(kept, copies / (1.0 - self.dropout), 0.0).astype(copies.dtype)


class _Branch(nn.Module):
    """The mean of 3x3 convolutions of three dilations to a quarter of the channels, a ReLU, and back to all."""

    dtype: Dtype = None

    @nn.compact
    def __call__(self, maps: Array) -> Array:
        """[N, h, w, C] -> [N, h, w, C]."""
        channels = maps.shape[-1]
        options: dict[str, Any] = {
            "dtype": self.dtype,
            "kernel_init": nn.initializers.variance_scaling(2.0, "fan_in", "normal"),
        }
        narrow = [Conv(channels // 4, 3, padding=d, dilation=d, name=f"dilated{d}", **options)(maps) for d in DILATIONS]
        return Conv(channels, 1, use_bias=True, name="widen", **options)(nn.relu(sum(narrow) / len(narrow)))


class AggregatedResNet(ResNet):
    """A ResNet whose stages up to one are followed by an `Aggregation`, and that one by an `Expansion`.

    Attributes:
      expanded: number of that stage; after it every image has three maps.
      dropout: of the expansion.
    """

    expanded: int = 3
    dropout: float = 0.01

    def _run_stage(self, number: int, x: Array, train: bool) -> Array:
        high = super()._run_stage(number, x, train)
        if number <= self.expanded:
            high = Aggregation(name=f"aggregation{number}")(high, x, train)
        if number == self.expanded:
            high = Expansion(self.dropout, self.dtype, name="expansion")(high, train)
        return high


class ExpandedTwoStream(TwoStream):
    """DEEN's network of two stems and a shared `AggregatedResNet`, which ends with the stage after the expansion.

    Called as a `TwoStream` is; the maps are [3 (V + I), h, w, features]: of all images, visible ones first, then those
    of the first branch in the same order, then those of the second.

    Attributes:
      expanded: see `AggregatedResNet`; 3 for SYSU-MM01 and LLCM, 2 for RegDB, whose network has no fourth stage.
      dropout: see `Expansion`.
    """

    expanded: int = 3
    dropout: float = 0.01

    def __post_init__(self) -> None:
        if not 1 <= self.expanded < len(self.stages):
            raise UserError(
                f"config.model.expanded is {self.expanded}; it is the number of a stage that another one follows, 1 to"
                f" {len(self.stages) - 1}"
            )
        super().__post_init__()

    @property
    def features(self) -> int:
        """Channels of the output."""
        return super().features >> (len(self.stages) - self.expanded - 1)

    def _network(self, **parts: Any) -> AggregatedResNet:
        parts = {"last": self.expanded + 1, **parts}
        return AggregatedResNet(expanded=self.expanded, dropout=self.dropout, **self._options, **parts)

    def check_size(self, height: int, width: int) -> None:
        """Raises a `UserError` where images of this size give a map that cannot be cut into two equal halves."""
        sizes = [(-(-height // scale), -(-width // scale)) for scale in (4 * 2**i for i in range(self.expanded))]
        for tall, wide in sizes:
            if tall * wide % 2:
                raise UserError(
                    f"config.data.image_size is ({height}, {width}), which gives maps of {tall}x{wide} positions; DEEN"
                    " pairs the positions of each map, so their number must be even: choose a height that is a multiple"
                    f" of {8 * 2 ** (self.expanded - 1)}"
                )
