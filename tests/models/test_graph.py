"""Graph attention against loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mmreid_jax.models.graph import AttentionLayer, GraphAttention

LABELS = np.array([3, 1, 3, 7, 1, 3])


NEIGHBOURS = jnp.asarray(np.equal.outer(LABELS, LABELS))


def nodes(width=5):
    return jnp.asarray(np.random.default_rng(0).normal(size=(len(LABELS), width)))


def by_loops(x, kernel, vector, neighbours):
    """Node by node and neighbour by neighbour, in numpy."""
    h = x @ kernel
    width = h.shape[1]
    out = np.zeros_like(h)
    for i in range(len(x)):
        scores = {}
        for j in np.flatnonzero(neighbours[i]):
            score = float(h[i] @ vector[:width, 0] + h[j] @ vector[width:, 0])
            scores[j] = np.exp(score if score > 0 else 0.2 * score)
        for j, score in scores.items():
            out[i] += score / sum(scores.values()) * h[j]
    return out


def test_heads_against_loops(x64):
    x = nodes()
    model = GraphAttention(classes=4, heads=3, width=2)
    params = jax.tree.map(lambda p: jnp.asarray(2 * p, jnp.float64), model.init(jax.random.key(0), x, NEIGHBOURS))
    out = model.apply(params, x, NEIGHBOURS)
    elu = lambda y: np.where(y > 0, y, np.expm1(y))  # noqa: E731
    layers = jax.tree.map(np.asarray, params["params"])
    heads = [
        elu(by_loops(np.asarray(x), kernel, vector, NEIGHBOURS))
        for kernel, vector in zip(layers["heads"]["kernel"], layers["heads"]["vector"], strict=True)
    ]
    np.testing.assert_allclose(out["heads"], heads, rtol=1e-10, atol=1e-12)
    last = by_loops(np.concatenate(heads, axis=1), layers["out"]["kernel"], layers["out"]["vector"], NEIGHBOURS)
    np.testing.assert_allclose(out["out"], last, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(out["logits"], elu(last), rtol=1e-10, atol=1e-12)


def test_nobody_hears_of_another_identity(x64):
    x = nodes()
    model = GraphAttention(classes=4, heads=2, width=3)
    params = jax.jit(model.init)(jax.random.key(0), x, NEIGHBOURS)
    heard = jax.jit(jax.jacobian(lambda y: model.apply(params, y, NEIGHBOURS)["logits"].sum(1)))(x)
    np.testing.assert_array_equal(np.abs(heard).sum(-1) > 0, NEIGHBOURS)


def test_gradients_are_finite_where_a_node_is_alone():
    x = nodes().astype(jnp.float32)
    model = AttentionLayer(3)
    alone = jnp.eye(len(x), dtype=bool)
    params = model.init(jax.random.key(0), x, alone)
    gradients = jax.jit(jax.grad(lambda p, y: (model.apply(p, y, alone) ** 2).sum(), (0, 1)))(params, x)
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(gradients))
    # Whoever is alone takes his own value, whatever the attention says.
    np.testing.assert_allclose(model.apply(params, x, alone), x @ params["params"]["kernel"], rtol=1e-5)


def test_fresh_parameters_follow_xavier_with_pytorch_s_gain():
    model = GraphAttention(classes=30, heads=4, width=20)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((2, 50)), jnp.ones((2, 2), bool))["params"]
    for leaf, size in ((params["heads"]["kernel"], 50 + 20), (params["heads"]["vector"], 40 + 1)):
        limit = 1.414 * np.sqrt(6 / size)
        assert 0.9 * limit < np.abs(leaf).max() <= limit
    assert np.abs(params["out"]["kernel"]).max() <= 1.414 * np.sqrt(6 / (80 + 30))


def test_dropout_is_at_four_places(x64):
    """Nodes (one mask for all heads), weights of the heads, their outputs, weights of the last layer."""
    x, key, keep = nodes(), jax.random.key(5), 0.7
    model = GraphAttention(classes=4, heads=2, width=3, dropout=1 - keep)
    params = jax.jit(model.init)(jax.random.key(0), x, NEIGHBOURS)
    layers = params["params"]
    keys = jax.random.split(key, 4)

    def drop(number, value):
        return jnp.where(jax.random.bernoulli(keys[number], keep, value.shape), value / keep, 0.0)

    def layer(number, value, kernel, vector):
        h = value @ kernel
        width = h.shape[-1]
        scores = h @ vector[..., :width, :] + jnp.swapaxes(h @ vector[..., width:, :], -1, -2)
        scores = jnp.where(NEIGHBOURS, jnp.where(scores > 0, scores, 0.2 * scores), -9e15)
        return drop(number, jax.nn.softmax(scores)) @ h

    heads = jax.nn.elu(layer(1, drop(0, x), **layers["heads"]))
    joined = drop(2, jnp.concatenate(list(heads), axis=1))
    wanted = layer(3, joined, **layers["out"])
    out = model.apply(params, x, NEIGHBOURS, key)
    np.testing.assert_allclose(out["out"], wanted, rtol=1e-10, atol=1e-12)
    other = model.apply(params, x, NEIGHBOURS, jax.random.key(6))
    assert not np.allclose(out["out"], other["out"])
