"""Layers shared by the backbones: PyTorch's batch normalisation and convolution, and stochastic depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Dtype = Any


class TorchBatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, with PyTorch's running statistics.

    Normalisation uses the biased variance of the batch; the running variance takes the unbiased one (factor n/(n-1)),
    which flax's own layer does not. Under `jax.jit` with a sharded batch the statistics are those of the global batch.

    Attributes:
      momentum: weight of the new batch in the running statistics (PyTorch's sense; flax's is one minus it).
      epsilon: added to the variance.
      groups: the leading axis holds this many batches one after another, each normalised by its own statistics; the
        running statistics are updated once per group, in order, as if the layer had been called once for each.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5
    groups: int = 1

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Normalises `x` [groups * B, ..., C]; with `train` by batch statistics, which update the running ones."""
        width = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, width)
        bias = self.param("bias", nn.initializers.zeros, width)
        mean = self.variable("batch_stats", "mean", jnp.zeros, width)
        var = self.variable("batch_stats", "var", jnp.ones, width)
        count = self.variable("batch_stats", "count", jnp.zeros, (), jnp.int32)
        exact = jnp.promote_types(x.dtype, jnp.float32)
        if not train:
            factor = jax.lax.rsqrt(var.value + self.epsilon) * scale
            return (x * factor + (bias - mean.value * factor)).astype(x.dtype)
        y = x.astype(exact).reshape(self.groups, x.shape[0] // self.groups, *x.shape[1:])
        axes = tuple(range(1, y.ndim - 1))
        batch_mean = y.mean(axes, keepdims=True)
        centred = y - batch_mean
        batch_var = jnp.square(centred).mean(axes, keepdims=True)
        if not self.is_initializing():
            samples = y.size // (self.groups * y.shape[-1])
            unbiased = batch_var * (samples / max(samples - 1, 1))
            for group in range(self.groups):
                mean.value += self.momentum * (batch_mean[group].reshape(width) - mean.value)
                var.value += self.momentum * (unbiased[group].reshape(width) - var.value)
            count.value += self.groups
        return (centred * (jax.lax.rsqrt(batch_var + self.epsilon) * scale) + bias).reshape(x.shape).astype(x.dtype)


class Conv(nn.Module):
    """PyTorch's two-dimensional convolution without bias on NHWC images, with symmetric zero padding.

    A 1x1 kernel is computed as a matrix product, which XLA runs faster on a CPU and equally fast elsewhere.
    """

    features: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, H', W', features]."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        weight = self.param("kernel", nn.initializers.variance_scaling(2.0, "fan_out", "normal"), shape)
        x, weight = nn.dtypes.promote_dtype(x, weight, dtype=self.dtype)
        if self.kernel == 1:
            return jnp.einsum("bhwi,io->bhwo", x[:, :: self.stride, :: self.stride], weight[0, 0])
        pad = (self.padding, self.padding)
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, weight, (self.stride, self.stride), (pad, pad), dimension_numbers=layout)


def drop_path_rates(rate: float, depth: int) -> np.ndarray:
    """Stochastic-depth rates [depth] growing linearly from 0 to `rate`, as in TransReID and timm."""
    return np.linspace(0.0, rate, depth)


def drop_path_multipliers(key: Array, rates: Sequence[float] | np.ndarray, samples: int) -> Array:
    """Draws stochastic depth for a whole batch: [depth, 2, samples], 0 (branch dropped) or 1 / (1 - rate).

    The two rows of a block belong to its attention and its MLP branch. Drawing outside of the network makes the result
    independent of how the batch is cut into micro-batches or spread over devices.
    """
    keep = 1.0 - jnp.asarray(rates)[:, None, None]
    kept = jax.random.uniform(key, (len(rates), 2, samples)) < keep
    return jnp.where(kept, 1.0 / keep, 0.0)
