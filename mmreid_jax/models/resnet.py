"""ResNets with torchvision's names, whole or in parts, with the stems of several systems, and CLIP's form.

Reference: He et al. 2016; file ``model/backbones/resnet.py`` of HTT (stride in the 3x3 convolution of a bottleneck);
class ``ModifiedResNet`` of OpenAI's ``clip/model.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmreid_jax.models.layers import Conv, TorchBatchNorm, max_pool
from mmreid_jax.models.non_local import NonLocal

Array = jax.Array
Dtype = Any

STAGES = (3, 4, 6, 3)
STEMS = ("torchvision", "transreid", "tvi_lfm", "clip")
"""Forms of a ResNet's first part, see `ResNet`."""
RESNETS: dict[str, dict[str, Any]] = {
    "resnet50": {"stages": STAGES, "width": 64},
    "resnet18": {"stages": (2, 2, 2, 2), "width": 64, "bottleneck": False},
    # For drawn data, and for tests.
    "resnet_mini": {"stages": (1, 1, 1, 1), "width": 16},
    "resnet_micro": {"stages": (1, 1, 1, 1), "width": 8},
    "resnet_nano": {"stages": (1,), "width": 8},
    "resnet_nano2": {"stages": (2,), "width": 8},
}
"""Name -> stages, width and kind of block."""


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with batch norms and a shortcut.

    With `pooled` no convolution has a stride, but both branches an average pooling before their last one (CLIP).
    """

    width: int
    stride: int = 1
    downsample: bool = False
    groups: int = 1
    dtype: Dtype = None
    pooled: bool = False

    expansion = 4

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, 4 * width]."""

        def norm(name: str, y: Array) -> Array:
            return TorchBatchNorm(groups=self.groups, name=name)(y, train)

        stride = 1 if self.pooled else self.stride
        pool = functools.partial(shrink, factor=self.stride if self.pooled else 1)
        y = nn.relu(norm("bn1", Conv(self.width, 1, dtype=self.dtype, name="conv1")(x)))
        y = nn.relu(norm("bn2", Conv(self.width, 3, stride, 1, self.dtype, name="conv2")(y)))
        y = norm("bn3", Conv(4 * self.width, 1, dtype=self.dtype, name="conv3")(pool(y)))
        if self.downsample:
            shortcut = Conv(4 * self.width, 1, stride, dtype=self.dtype, name="downsample_0")(pool(x))
            x = norm("downsample_1", shortcut)
        return nn.relu(x + y)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norms and a shortcut, the block of ResNet-18; the stride sits on the first."""

    width: int
    stride: int = 1
    downsample: bool = False
    groups: int = 1
    dtype: Dtype = None

    expansion = 1

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, width]."""

        def norm(name: str, y: Array) -> Array:
            return TorchBatchNorm(groups=self.groups, name=name)(y, train)

        y = nn.relu(norm("bn1", Conv(self.width, 3, self.stride, 1, self.dtype, name="conv1")(x)))
        y = norm("bn2", Conv(self.width, 3, 1, 1, self.dtype, name="conv2")(y))
        if self.downsample:
            shortcut = Conv(self.width, 1, self.stride, dtype=self.dtype, name="downsample_0")(x)
            x = norm("downsample_1", shortcut)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Images -> feature maps of the last stage; or a run of its parts, for networks that share some of them.

    Part 0 is the stem with its pooling, part i is stage i.

    Attributes:
      stages: blocks per stage.
      width: channels of the first stage (64 in ResNet-50).
      bottleneck: blocks of three convolutions; else of two, as in ResNet-18.
      last_stride: stride of the last stage; re-identification uses 1.
      stem: one of `STEMS`: "torchvision" (ReLU, 3x3 max-pooling with padding), "transreid" (no ReLU, 2x2 max-pooling),
        "tvi_lfm" (no ReLU, 3x3 max-pooling with padding) or "clip" (three 3x3 convolutions and an average pooling, and
        average poolings for strides in all bottlenecks). Parity: the ReLU is commented out in TransReID's and HTT's
        copy and left out of TVI-LFM's stems, and published weights were trained so.
      classes: width of torchvision's ``fc`` head on the average pool, one more stage called ``logits``; 0: none.
      groups: batches stacked on the leading axis, each with its own batch statistics (`TorchBatchNorm`).
      dtype: type of the computation (None: that of parameters and images); batch statistics stay in float32.
      remat: recompute the blocks in the backward pass.
      first: the first part that this module has.
      last: the last one; None: that of the whole network.
      non_local: (stage, block) of the blocks that a non-local block follows; stages from 1, blocks from 0.
    """

    stages: tuple[int, ...] = STAGES
    width: int = 64
    bottleneck: bool = True
    last_stride: int = 1
    stem: str = "torchvision"
    classes: int = 0
    groups: int = 1
    dtype: Dtype = None
    remat: bool = False
    first: int = 0
    last: int | None = None
    non_local: tuple[tuple[int, int], ...] = ()

    @property
    def features(self) -> int:
        """Channels of the whole network's output."""
        return self._block.expansion * self.width * 2 ** (len(self.stages) - 1)

    @property
    def _block(self) -> type[Bottleneck] | type[BasicBlock]:
        return Bottleneck if self.bottleneck else BasicBlock

    @nn.compact
    def __call__(self, images: Array, train: bool, return_stages: bool = False) -> Array | dict[str, Array]:
        """Embeds images.

        Args:
          images: float [groups * B, H, W, 3], normalised; where `first` is not 0, the maps of the part before it.
          train: normalise by batch statistics and update the running ones.
          return_stages: return every stage by name instead of the last.

        Returns:
          Feature map [groups * B, h, w, features]; or {stem, maxpool, layer1, ...} of maps.
        """
        x, stages = images, {}
        if self.first == 0:
            stages = self._run_stem(images, train)
            x = stages["maxpool"]
        last = len(self.stages) if self.last is None else self.last
        for number in range(max(self.first, 1), last + 1):
            x = stages[f"layer{number}"] = self._run_stage(number, x, train)
        if self.classes:
            stages["logits"] = nn.Dense(self.classes, dtype=self.dtype, name="fc")(average_pool(x))
        return stages if return_stages else x

    def _run_stem(self, images: Array, train: bool) -> dict[str, Array]:
        if self.stem == "clip":
            x = images
            for number, width, stride in ((1, self.width // 2, 2), (2, self.width // 2, 1), (3, self.width, 1)):
                x = Conv(width, 3, stride, 1, self.dtype, name=f"conv{number}")(x)
                x = nn.relu(TorchBatchNorm(groups=self.groups, name=f"bn{number}")(x, train))
            return {"stem": x, "maxpool": shrink(x, 2)}
        x = Conv(self.width, 7, 2, 3, self.dtype, name="conv1")(images)
        x = TorchBatchNorm(groups=self.groups, name="bn1")(x, train)
        if self.stem not in STEMS:
            raise ValueError(f"unknown ResNet stem {self.stem!r}; choose one of {', '.join(STEMS)}")
        if self.stem == "torchvision":
            x = nn.relu(x)
        pooling = {"window": 2, "padding": 0} if self.stem == "transreid" else {"window": 3, "padding": 1}
        return {"stem": x, "maxpool": max_pool(x, **pooling)}

    def _run_stage(self, number: int, x: Array, train: bool) -> Array:
        first_stride = 1 if number == 1 else self.last_stride if number == len(self.stages) else 2
        block = nn.remat(self._block, static_argnums=(2,)) if self.remat else self._block
        form: dict[str, Any] = {"pooled": True} if self.stem == "clip" else {}
        for index in range(self.stages[number - 1]):
            x = block(
                self.width * 2 ** (number - 1),
                stride=first_stride if index == 0 else 1,
                # Bottlenecks widen in their first stage as well, basic blocks do not.
                downsample=index == 0 and (self.bottleneck or number > 1),
                groups=self.groups,
                dtype=self.dtype,
                name=f"layer{number}_{index}",
                **form,
            )(x, train)
            if (number, index) in self.non_local:
                x = NonLocal(groups=self.groups, name=f"non_local{number}_{index}")(x, train)
        return x


def shrink(maps: Array, factor: int) -> Array:
    """Means of squares of `factor` by `factor` entries, what is left at the edges left out: [B, H, W, C]."""
    return maps if factor == 1 else nn.avg_pool(maps, (factor, factor), (factor, factor))


def average_pool(maps: Array) -> Array:
    """Spatial mean: [B, H, W, C] -> [B, C], summed in at least float32."""
    return maps.astype(jnp.promote_types(maps.dtype, jnp.float32)).mean((1, 2))


def gem_pool(maps: Array, power: Array | float = 3.0, epsilon: float = 1e-6) -> Array:
    """Generalised mean (mean over space of max(x, epsilon) ** power) ** (1 / power): [B, H, W, C] -> [B, C]."""
    return jnp.power(jnp.power(jnp.maximum(maps, epsilon), power).mean((1, 2)), 1.0 / power)


def gem_pool_agw(maps: Array, power: Array | float = 3.0, epsilon: float = 1e-12) -> Array:
    """AGW's generalised mean: (mean over space of x ** power + epsilon) ** (1 / power), without a clamp of x.

    Reference: ``embed_net`` of Cross-Modal-Re-ID-baseline; x is the output of a ReLU.
    """
    return jnp.power(jnp.power(maps, power).mean((1, 2)) + epsilon, 1.0 / power)


def part_pool(maps: Array, parts: int, reduce: Callable[..., Array] = jnp.mean) -> Array:
    """PyTorch's adaptive pooling into horizontal parts, by `reduce` (mean or max): [B, H, W, C] -> [B, parts, C].

    Part i covers the rows floor(i * H / parts) up to ceil((i + 1) * H / parts); parts overlap where H is no multiple.
    """
    height = maps.shape[1]
    bounds = [(i * height // parts, -(-(i + 1) * height // parts)) for i in range(parts)]
    return jnp.stack([reduce(maps[:, top:bottom], axis=(1, 2)) for top, bottom in bounds], axis=1)
