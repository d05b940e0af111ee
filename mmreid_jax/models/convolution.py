"""Convolution and max-pooling of NHWC maps as PyTorch defines them, with backward passes that are fast on a CPU.

Both equal what autodiff derives from the plain forms (``tests/models/test_fast_forms.py``), and on an accelerator they
are those forms. They cannot be differentiated in forward mode.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array

# Of so few channels the taps of a row of a kernel go into one product.
_NARROW = 16


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """Convolution with symmetric zero padding: [B, H, W, I], [k, k, I, O] -> [B, H', W', O].

    On a CPU the gradient of the kernel is one matrix product for each of its taps, faster than the convolution of
    images by gradients that autodiff derives.
    """
    return _convolution(x, kernel, stride, padding)


def _convolution(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    pad = (padding, padding)
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), (pad, pad), dimension_numbers=layout)


def _convolve(x: Array, kernel: Array, stride: int, padding: int) -> tuple[Array, tuple[Array, Array]]:
    return _convolution(x, kernel, stride, padding), (x, kernel)


def _convolve_gradient(stride: int, padding: int, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    of_x = jax.linear_transpose(lambda y: _convolution(y, kernel, stride, padding), x)

    def transposed(images: Array, of_maps: Array) -> Array:
        return jax.linear_transpose(lambda w: _convolution(images, w, stride, padding), kernel)(of_maps)[0]

    def by_taps(images: Array, of_maps: Array) -> Array:
        size, inputs = kernel.shape[1:3]
        taps = _taps(images, size, stride, padding, of_maps.shape[1:3], 0)
        if inputs < _NARROW:
            taps = [jnp.concatenate(taps[row : row + size], axis=-1) for row in range(0, size * size, size)]
        columns = of_maps.reshape(-1, of_maps.shape[-1])
        over_rows = (((0,), (0,)), ((), ()))
        products = [jax.lax.dot_general(tap.reshape(-1, tap.shape[-1]), columns, over_rows) for tap in taps]
        return jnp.stack(products).reshape(kernel.shape)

    return of_x(g)[0], jax.lax.platform_dependent(x, g, cpu=by_taps, default=transposed)


convolve.defvjp(_convolve, _convolve_gradient)


def _taps(x: Array, size: int, stride: int, padding: int, out: Sequence[int], fill: float) -> list[Array]:
    """What each tap of a window of `size` x `size`, row by row, sees of padded `x`: size ** 2 of [B, *out, C]."""
    pad = (padding, padding)
    x = jnp.pad(x, ((0, 0), pad, pad, (0, 0)), constant_values=fill)
    rows, columns = (stride * (length - 1) + 1 for length in out)
    return [x[:, i : i + rows : stride, j : j + columns : stride] for i in range(size) for j in range(size)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def max_pool(x: Array, window: int, padding: int) -> Array:
    """PyTorch's max-pooling with stride 2: [B, H, W, C] -> [B, H', W', C]; gradients go to the first of equal maxima.

    On a CPU the gradient is gathered from the windows that an entry belongs to, where autodiff's scatters one entry
    at a time.
    """
    return _max_pool(x, window, padding)


def _max_pool(x: Array, window: int, padding: int) -> Array:
    pad = (padding, padding)
    return nn.max_pool(x, (window, window), (2, 2), padding=(pad, pad))


def _max_pool_gradient(window: int, padding: int, x: Array, g: Array) -> tuple[Array]:
    def scattered(maps: Array, of_pooled: Array) -> Array:
        return jax.vjp(lambda y: _max_pool(y, window, padding), maps)[1](of_pooled)[0]

    gathered = functools.partial(_max_pool_gradient_gathered, window, padding)
    return (jax.lax.platform_dependent(x, g, cpu=gathered, default=scattered),)


def _max_pool_gradient_gathered(window: int, padding: int, x: Array, g: Array) -> Array:
    pooled = g.shape[1:3]
    best, *others = _taps(x, window, 2, padding, pooled, -jnp.inf)
    chosen = jnp.zeros(g.shape, jnp.int8)
    for number, tap in enumerate(others, start=1):
        chosen = jnp.where(tap > best, jnp.int8(number), chosen)
        best = jnp.maximum(tap, best)
    # Row 2 r + a of the padded maps is tap a + 2 d of the window r - d; so are columns.
    halves = [-(-(length + 2 * padding) // 2) for length in x.shape[1:3]]
    back = (window - 1) // 2
    around = ((0, 0), *((back, half - length) for half, length in zip(halves, pooled, strict=True)), (0, 0))
    g, chosen = jnp.pad(g, around), jnp.pad(chosen, around)

    def entries(a: int, b: int) -> Array:
        total = jnp.zeros((len(g), *halves, g.shape[-1]), g.dtype)
        for i in range(a, window, 2):
            for j in range(b, window, 2):
                top, left = back - i // 2, back - j // 2
                part = (slice(None), slice(top, top + halves[0]), slice(left, left + halves[1]))
                total += jnp.where(chosen[part] == i * window + j, g[part], 0)
        return total

    rows = jnp.stack([jnp.stack([entries(a, b) for b in (0, 1)], axis=3) for a in (0, 1)], axis=2)
    full = rows.reshape(len(g), 2 * halves[0], 2 * halves[1], -1)
    return full[:, padding : padding + x.shape[1], padding : padding + x.shape[2]]


max_pool.defvjp(lambda x, window, padding: (_max_pool(x, window, padding), x), _max_pool_gradient)
