"""Operations as ONNX graphs make what JAX makes, for batches of any size."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.export import onnx_graph

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(6, 5)).astype(np.float32)
KERNEL = RNG.normal(size=(3, 2, 4, 6)).astype(np.float32)
DEEP = RNG.normal(size=(3, 5, 5)).astype(np.float32)


def conv(x, **options):
    return jax.lax.conv_general_dilated(x, KERNEL, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)


def scan(x, reverse=False):
    carried, collected = jax.lax.scan(
        lambda carry, w: (jnp.tanh(carry @ w), carry.sum(axis=-1)),
        x.mean((1, 2))[:, :1] + TABLE[0],
        DEEP,
        reverse=reverse,
    )
    return jnp.concatenate([carried, collected.T], axis=1)


def pooled(x):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 2, 1), (1, 2, 1, 1), ((0, 0), (1, 0), (0, 1), (0, 0)))


# Functions of [B, 8, 6, 4].
FUNCTIONS = {
    "elementwise": lambda x: jnp.sqrt(jnp.abs(jnp.exp(-x) * x**3 - jnp.square(x))) + jax.nn.sigmoid(x) / 2,
    "choices": lambda x: jnp.where((x > 0.5) & ~(x >= 1) | (x != x), jnp.clip(x, -1, 0.7), jnp.minimum(x, 3.0)),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False) + jax.nn.leaky_relu(x) + jax.nn.relu(x),
    "rounding": lambda x: jnp.floor(x) + jnp.ceil(x) + jnp.sign(x) + (x * 2).astype(jnp.int32).astype(jnp.float32),
    "softmax": lambda x: jax.nn.softmax(x, axis=2) + jax.nn.log_softmax(x, axis=1),
    "rsqrt": lambda x: x * jax.lax.rsqrt(jnp.var(x, axis=(1, 2), keepdims=True) + 1e-5),
    "reductions": lambda x: x.max((1, 3)) - x.min((1, 3)) + x.sum((1, 3)),
    "matmul": lambda x: x.reshape(x.shape[0], 48, 4) @ TABLE[:4, :3],
    "batched matmul": lambda x: jnp.einsum("bhwc,bhvc->bhwv", x, x),
    "odd product": lambda x: jnp.einsum("bhwc,wk->kbc", x, TABLE).swapaxes(0, 1),
    "stacked": lambda x: jnp.stack([x, 2 * x, x * x], axis=1).sum(axis=2),
    "tripled": lambda x: jnp.concatenate([x, x + 1, x + 2]).reshape(3, -1, 8, 6, 4)[1:].swapaxes(0, 1),
    "tiled": lambda x: jnp.tile(x, 3) + jnp.tile(x[:, 0, 0, 0], 2)[: x.shape[0], None, None, None],
    "split": lambda x: jnp.concatenate(jnp.split(x, [2, 3], axis=2)[::-1], axis=2),
    "halves": lambda x: sum(jnp.split(jnp.concatenate([x, x * 2]), 2)),
    "slices": lambda x: x[:, ::-1, 1:5:2, -2:],
    "padded": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 3), (0, 0)), constant_values=1.5),
    "convolution": lambda x: conv(x, window_strides=(2, 1), padding=((1, 0), (0, 2))),
    "dilated": lambda x: conv(x, window_strides=(1, 1), padding="SAME", rhs_dilation=(2, 2)),
    "pooling": pooled,
    "scan": scan,
    "scan backwards": lambda x: scan(x, reverse=True),
    "positions": lambda x: x + jnp.arange(6)[:, None] * jnp.arange(x.shape[0])[:, None, None, None],
    "count": lambda x: jnp.where(jnp.arange(2 * x.shape[0]) < x.shape[0], 1.0, 2.0)[:, None][: x.shape[0]] + x[:, 0, 0],
    "rows": lambda x: jnp.asarray(TABLE)[jnp.abs(x[:, 0, 0]).astype(jnp.int32) % 6],
    "largest": lambda x: jnp.take_along_axis(x[:, 0], x[:, 0, :, 0].argmax(axis=1)[:, None, None], axis=1)[:, 0],
    "broadcast": lambda x: jnp.broadcast_to(x.mean((1, 2))[:, None], (x.shape[0], 7, 4)).reshape(x.shape[0], -1),
    "nothing": lambda x: x,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_operation_makes_what_jax_makes(name):
    function = FUNCTIONS[name]
    model = onnx_graph.convert(function, {"x": ((8, 6, 4), np.float32)}, "y", {})
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for count in (1, 2, 9):
        x = np.random.default_rng(count).normal(size=(count, 8, 6, 4)).astype(np.float32)
        (made,) = session.run(["y"], {"x": x})
        expected = np.asarray(function(jnp.asarray(x)))
        assert made.shape == expected.shape
        np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5)


def test_what_is_known_is_stored_once_and_computed_here():
    def function(x):
        return x @ (jnp.asarray(TABLE).T @ jnp.asarray(TABLE)) + jnp.asarray(TABLE)[0] + jnp.asarray(TABLE)[0]

    model = onnx_graph.convert(function, {"x": ((5,), np.float32)}, "y", {"method": "none"})
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Add", "Add", "Identity"]
    assert {each.key: each.value for each in model.metadata_props} == {"method": "none"}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: jnp.fft.fft(x).real, "no form"),
        (lambda x: x / x.shape[0], "5.0 for 5 samples is 7.0 for 7"),
        (lambda x: x + jnp.asarray(np.ones((x.shape[0], 1), np.float32)), "a table of it"),
        (lambda x: sum(x[i] for i in range(x.shape[0])) + x, "other steps"),
    ],
)
def test_what_cannot_be_written_is_a_line(function, message):
    with pytest.raises(UserError, match=message):
        onnx_graph.convert(function, {"x": ((4,), np.float32)}, "y", {})
