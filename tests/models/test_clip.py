"""CLIP's towers on small sizes: what they see and what not. Their numbers are in ``tests/parity/test_clip_*.py``."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.models import clip, resnet
from mmreid_jax.models.vit import SIZES as SIZES_OF_VITS
from mmreid_jax.models.vit import VisionTransformer

END = 99
SIZES = {**clip.TEXT_TOWERS["text_micro"], "vocabulary": END + 1, "length": 12}


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def drawn(like):
    """Variables, float64, in which no bias is zero."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: 0.3 * rng.standard_normal(x.shape), like)


@pytest.fixture(scope="module")
def tower():
    """A text tower with its variables and its compiled forward pass."""
    network = clip.TextTower(**SIZES)
    like = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, SIZES["length"]), jnp.int32))
    return jax.tree.map(np.float32, drawn(like)), jax.jit(network.apply)


def text(*numbers, length=SIZES["length"]):
    return jnp.asarray([[*numbers, *[0] * (length - len(numbers))]], jnp.int32)


def test_feature_is_read_at_the_first_end_mark(tower):
    variables, run = tower
    feature = run(variables, text(98, 5, 7, END))
    assert feature.shape == (1, SIZES["out"])
    # What follows is not seen, be it another end mark.
    np.testing.assert_allclose(run(variables, text(98, 5, 7, END, 3, END, 9)), feature, rtol=1e-5, atol=1e-6)
    assert np.abs(run(variables, text(98, 5, 8, END)) - feature).max() > 1e-2


def norm(x, layer):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5) * layer["scale"] + layer["bias"]


def dense(x, layer):
    return x @ layer["kernel"] + layer["bias"]


def plain_blocks(x, blocks, heads, causal):
    """Pre-norm blocks on tokens [N, D] of one sample, head by head and token by token."""
    for number in range(len(blocks["norm1"]["scale"])):
        block = jax.tree.map(lambda leaf, i=number: leaf[i], blocks)
        q, k, v = np.split(dense(norm(x, block["norm1"]), block["attn"]["qkv"]), 3, axis=-1)
        out = np.zeros_like(x)
        for part in np.split(np.arange(x.shape[1]), heads):
            for token in range(len(x)):
                seen = slice(0, token + 1 if causal else None)
                scores = np.exp(k[seen, part] @ q[token, part] / np.sqrt(len(part)))
                out[token, part] = scores / scores.sum() @ v[seen, part]
        x = x + dense(out, block["attn"]["proj"])
        hidden = dense(norm(x, block["norm2"]), block["mlp"]["fc1"])
        x = x + dense(hidden / (1 + np.exp(-1.702 * hidden)), block["mlp"]["fc2"])
    return x


def test_text_tower_against_plain_loops(tower):
    variables, run = tower
    params = jax.tree.map(np.float64, variables)["params"]
    numbers = [98, 5, 7, 3, END, 1]
    x = plain_blocks(params["token_embed"][numbers] + params["pos_embed"][:6], params["blocks"], 4, causal=True)
    expected = norm(x[4], params["norm"]) @ params["proj"]
    found = run(variables, text(*numbers))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_vit_against_plain_loops():
    size = SIZES_OF_VITS["clip_vit_micro"]
    network = VisionTransformer(size, (24, 16), stride=4)
    image = np.random.default_rng(1).standard_normal((24, 16, 3))
    like = jax.eval_shape(network.init, jax.random.key(0), image[None])
    params = drawn(like)["params"]
    kernel = params["patch_embed"]["kernel"].reshape(-1, size.width)
    corners = [(top, left) for top in range(0, 17, 4) for left in range(0, 9, 4)]
    patches = [image[top : top + 8, left : left + 8].reshape(-1) @ kernel for top, left in corners]
    x = np.stack([params["cls_token"][0, 0], *patches]) + params["pos_embed"][0]
    x = plain_blocks(norm(x, params["norm_pre"]), params["blocks"], size.heads, causal=False)
    expected = norm(x[0], params["norm"]) @ params["proj"]
    given = jax.tree.map(np.float32, {"params": params})
    found = jax.jit(network.apply)(given, image[None].astype(np.float32))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_attention_pool_against_plain_loops():
    network = clip.AttentionPool(heads=2, out=3)
    maps = np.random.default_rng(2).standard_normal((1, 3, 2, 8))
    like = jax.eval_shape(network.init, jax.random.key(0), maps)
    params = drawn(like)["params"]
    places = maps[0].reshape(6, 8)
    x = np.stack([places.mean(0), *places]) + params["pos_embed"]
    q, k, v = dense(x[0], params["q"]), dense(x, params["k"]), dense(x, params["v"])
    parts = []
    for part in (slice(0, 4), slice(4, 8)):
        scores = np.exp(k[:, part] @ q[part] / 2)
        parts.append(scores / scores.sum() @ v[:, part])
    found = jax.jit(network.apply)({"params": jax.tree.map(np.float32, params)}, maps.astype(np.float32))[0]
    np.testing.assert_allclose(found, dense(np.concatenate(parts), params["proj"]), rtol=1e-4, atol=1e-5)


def test_poolings_stand_for_strides():
    maps = np.arange(2 * 5 * 4 * 3, dtype=np.float32).reshape(2, 5, 4, 3)
    expected = [[maps[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((1, 2)) for j in range(2)] for i in range(2)]
    np.testing.assert_allclose(resnet.shrink(maps, 2), np.moveaxis(np.array(expected), 2, 0), rtol=1e-6)
    network = clip.ResNetTower(out=12, heads=2, stages=(1, 2), width=8)
    like = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((2, 32, 24, 3)), False))
    # The stem and its pooling divide the sides by four, the second stage by two.
    assert like["params"]["attnpool"]["pos_embed"].shape == (1 + 4 * 3, 64)
    assert resnet.ResNet(stem="clip").features == 2048


def test_similarity():
    images, texts = jnp.array([[3.0, 4.0], [0.0, 2.0]]), jnp.array([[5.0, 0.0], [0.0, 0.1]])
    np.testing.assert_allclose(clip.similarity(images, texts, np.log(10)), [[6, 8], [0, 10]], atol=1e-5)


def test_shorter_rows_give_the_same(tower):
    variables, run = tower
    whole, cut = run(variables, text(98, 5, 7, END)), run(variables, text(98, 5, 7, END, length=6))
    np.testing.assert_allclose(cut, whole, rtol=1e-5, atol=1e-6)


def test_remat_gives_the_same_gradients(tower):
    variables, _ = tower
    tokens = text(98, 5, 7, END)

    def gradient(**options):
        network = clip.TextTower(**SIZES, **options)
        return jax.jit(jax.grad(lambda v: jnp.square(network.apply(v, tokens)).sum()))(variables)

    plain, again = gradient(), gradient(remat=True)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), plain, again)
    # Every token has a row in the gradient, whether a text has it or not.
    rows = np.abs(plain["params"]["token_embed"]).max(1) > 0
    np.testing.assert_array_equal(np.flatnonzero(rows), [5, 7, 98, END])


def test_half_precision_keeps_parameters_whole(tower):
    variables, run = tower
    network = clip.TextTower(**SIZES, dtype=jnp.bfloat16)
    feature = jax.jit(network.apply)(variables, text(98, 5, END))
    assert feature.dtype == jnp.bfloat16
    exact = run(variables, text(98, 5, END))
    assert np.abs(np.asarray(feature, np.float32) - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize(("name", "parameters"), [("clip_rn50", 63_690_240), ("clip_vit_b16", 63_428_096)])
def test_parameter_count(name, parameters):
    network = clip.TextTower(**clip.TEXT_TOWERS[name])
    assert count(jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 77), jnp.int32))) == parameters


def test_parameter_count_of_the_resnet():
    images = jnp.zeros((1, 224, 224, 3))
    like = jax.eval_shape(lambda: clip.ResNetTower().init(jax.random.key(0), images, False))
    assert count(like["params"]) == 38_316_896
