"""Layers shared by the backbones: PyTorch's batch normalisation and convolution, and stochastic depth.

`project` and the two GELUs have backward passes of their own. They equal what autodiff derives from the plain forms
(``tests/models/test_fast_forms.py``); a step with them is faster on a CPU and, with the GELUs, takes less memory
everywhere (``docs/results.md`` has the figures). Such functions cannot be differentiated in forward mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Dtype = Any


torch_uniform = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")
"""PyTorch's default of linear layers and convolutions: uniform between -1 and 1, divided by the root of the fan-in."""


def torch_bias(fan_in: int) -> nn.initializers.Initializer:
    """PyTorch's default for biases of linear layers and convolutions: uniform, as far from 0 as their weights."""
    limit = 1.0 / math.sqrt(fan_in)
    return lambda key, shape, dtype=float: jax.random.uniform(key, shape, dtype, -limit, limit)


def near_one(key: Array, shape: Sequence[int], dtype: Dtype = float) -> Array:
    """Normal around 1 with a deviation of 0.01: scales of the batch norms that visible-infrared systems add."""
    return 1.0 + 0.01 * jax.random.normal(key, shape, dtype)


class TorchBatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, with PyTorch's running statistics.

    Normalisation uses the biased variance of the batch; the running variance takes the unbiased one (factor n/(n-1)),
    which flax's own layer does not. Under `jax.jit` with a sharded batch the statistics are those of the global batch.

    Attributes:
      momentum: weight of the new batch in the running statistics (PyTorch's sense; flax's is one minus it).
      epsilon: added to the variance.
      groups: the leading axis holds this many batches one after another, each normalised by its own statistics; the
        running statistics are updated once per group, in order, as if the layer had been called once for each.
      scale_init: of the scale.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5
    groups: int = 1
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Normalises `x` [groups * B, ..., C]; with `train` by batch statistics, which update the running ones."""
        width = x.shape[-1:]
        scale = self.param("scale", self.scale_init, width)
        bias = self.param("bias", nn.initializers.zeros, width)
        mean = self.variable("batch_stats", "mean", jnp.zeros, width)
        var = self.variable("batch_stats", "var", jnp.ones, width)
        count = self.variable("batch_stats", "count", jnp.zeros, (), jnp.int32)
        if not train:
            factor = jax.lax.rsqrt(var.value + self.epsilon) * scale
            return (x * factor + (bias - mean.value * factor)).astype(x.dtype)
        exact = jnp.promote_types(x.dtype, jnp.float32)
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
    """PyTorch's two-dimensional convolution on NHWC images, with symmetric zero padding, by default without bias.

    A 1x1 kernel is computed as a matrix product, which XLA runs faster on a CPU and equally fast elsewhere.
    The default initialisation is that of ResNets: normal, by the fan-out (He et al. 2015).
    """

    features: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dtype: Dtype = None
    kernel_init: nn.initializers.Initializer = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    dilation: int = 1
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, H', W', features]."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        weight = self.param("kernel", self.kernel_init, shape)
        x, weight = nn.dtypes.promote_dtype(x, weight, dtype=self.dtype)
        if self.kernel == 1:
            y = project(x[:, :: self.stride, :: self.stride], weight[0, 0])
        else:
            y = jax.lax.conv_general_dilated(
                x,
                weight,
                window_strides=(self.stride, self.stride),
                padding=((self.padding, self.padding),) * 2,
                rhs_dilation=(self.dilation, self.dilation),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        if not self.use_bias:
            return y
        bias = self.param("bias", torch_bias(math.prod(shape[:3])), (self.features,))
        return y + bias.astype(y.dtype)


class Linear(nn.Module):
    """A linear layer with PyTorch's default initialisation: kernel and bias uniform by the fan-in."""

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., I] -> [..., features]."""
        width = x.shape[-1]
        y = project(x, self.param("kernel", torch_uniform, (width, self.features)))
        if not self.use_bias:
            return y
        return y + self.param("bias", torch_bias(width), (self.features,))


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


@jax.custom_vjp
def project(x: Array, kernel: Array) -> Array:
    """The product of a linear layer: [..., I], [I, O] -> [..., O].

    Autodiff transposes an operand to form the gradient of the kernel; here it is the product x^T g as it stands, and
    with the narrower side first: on a CPU it takes up to 1.6 times as long where its result has more rows than columns.
    """
    return x @ kernel


def project_dense(x: Array, kernel: Array, dimension_numbers: Any, precision: Any = None, **_: Any) -> Array:
    """`project` in the form that `flax.linen.Dense(dot_general=...)` takes."""
    del dimension_numbers, precision
    return project(x, kernel)


def _project(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ kernel, (x, kernel)


def _project_gradient(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    rows, columns = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    if x.shape[-1] <= g.shape[-1]:
        return g @ kernel.T, _product_of_columns(rows, columns)
    # XLA would take the transposition into the product.
    return g @ kernel.T, jax.lax.optimization_barrier(_product_of_columns(columns, rows)).T


project.defvjp(_project, _project_gradient)


def _product_of_columns(x: Array, y: Array) -> Array:
    """x^T y of [N, I] and [N, O]."""
    return jax.lax.dot_general(x, y, (((0,), (0,)), ((), ())))


def max_pool(x: Array, window: int, padding: int) -> Array:
    """PyTorch's max-pooling with stride 2: [B, H, W, C] -> [B, H', W', C]; gradient to the first maximum."""
    pad = (padding, padding)
    return nn.max_pool(x, (window, window), (2, 2), padding=(pad, pad))


@jax.custom_vjp
def gelu(x: Array) -> Array:
    """The exact GELU x * Phi(x), by erf as in PyTorch; computed in at least float32.

    Its derivative is kept for the backward pass in place of x: one array, and no second erf.
    """
    return _gelu(x)[0]


def _gelu(x: Array) -> tuple[Array, Array]:
    y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    below = 0.5 + 0.5 * jax.lax.erf(y * math.sqrt(0.5))
    density = jnp.exp(-0.5 * y * y) * (1.0 / math.sqrt(2.0 * math.pi))
    return (y * below).astype(x.dtype), (below + y * density).astype(x.dtype)


gelu.defvjp(_gelu, lambda derivative, g: (g * derivative,))


@jax.custom_vjp
def quick_gelu(x: Array) -> Array:
    """CLIP's approximation of the GELU, x * sigmoid(1.702 x); computed and differentiated as `gelu` is."""
    return _quick_gelu(x)[0]


def _quick_gelu(x: Array) -> tuple[Array, Array]:
    y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    below = jax.nn.sigmoid(1.702 * y)
    return (y * below).astype(x.dtype), (below + 1.702 * y * below * (1.0 - below)).astype(x.dtype)


quick_gelu.defvjp(_quick_gelu, lambda derivative, g: (g * derivative,))


def attention_weights(q: Array, k: Array, scale: float, causal: bool = False) -> Array:
    """Softmax of scale * q.k, in at least float32: [B, H, N, d], [B, H, N, d] -> [B, H, N, N].

    With `causal` a token sees itself and those before it.
    """
    exact = jnp.promote_types(q.dtype, jnp.float32)
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=exact) * scale
    seen = jnp.tri(scores.shape[-1], dtype=bool) if causal else None
    return jax.nn.softmax(scores, axis=-1, where=seen)


def split_heads(qkv: Array, heads: int) -> Array:
    """Joint projection [B, N, 3 D], each third cut into heads -> (q, k, v) [3, B, heads, N, D / heads]."""
    batch, tokens, width = qkv.shape
    return qkv.reshape(batch, tokens, 3, heads, width // (3 * heads)).transpose(2, 0, 3, 1, 4)


def join_heads(x: Array) -> Array:
    """[B, heads, N, d] -> [B, N, heads * d]."""
    batch, heads, tokens, width = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * width)


def attention(qkv: Array, heads: int, scale: float, causal: bool = False) -> Array:
    """Multi-head self-attention of a joint projection [q | k | v]; scores and softmax in at least float32.

    Args:
      qkv: [B, N, 3 D], each third cut into heads.
      heads: number of heads.
      scale: factor on the scores.
      causal: a token sees itself and those before it alone.

    Returns:
      [B, N, D].
    """
    q, k, v = split_heads(qkv, heads)
    weights = attention_weights(q, k, scale, causal).astype(v.dtype)
    return join_heads(jnp.einsum("bhqk,bhkd->bhqd", weights, v))
