"""The vision transformer: grid of patches, options that change nothing, attention."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.models import layers, vit


@pytest.mark.parametrize(("size", "stride", "grid"), [((256, 128), 16, (16, 8)), ((256, 128), 12, (21, 10))])
def test_patch_grid(size, stride, grid):
    assert vit.patch_grid(size, 16, stride) == grid


@pytest.mark.parametrize("size", [(8, 32), (32, 8)])
def test_an_image_smaller_than_a_patch_is_an_error(size):
    with pytest.raises(UserError, match=r"hold no patch of 16 x 16; choose larger ones with config\.data\.image_size"):
        vit.patch_grid(size, 16, 16)


def test_side_information_has_a_table_only_where_it_tells_something_apart():
    rows = {counts: vit.side_information_rows(*counts) for counts in ((4, 2), (4, 1), (1, 2), (1, 1), (0, 0))}
    assert list(rows.values()) == [8, 4, 2, 0, 0]


@pytest.fixture
def micro():
    network = vit.VisionTransformer(vit.SIZES["vit_micro"], (32, 16), drop_path=0.5)
    images = jax.random.normal(jax.random.key(1), (6, 32, 16, 3))
    return network, network.init(jax.random.key(0), images), images


@pytest.mark.slow(short=True)
@pytest.mark.parametrize("change", [{"remat": True}, {"unroll": 2}, {"implementation": "xla"}])
def test_options_for_speed_and_memory_change_nothing(micro, change):
    network, variables, images = micro
    keep = network.draw_drop_path(jax.random.key(2), len(images))

    def run(network):
        loss = lambda v: jnp.square(network.apply(v, images, keep=keep)).sum()  # noqa: E731
        return jax.jit(jax.value_and_grad(loss))(variables)

    for wanted, got in zip(*map(jax.tree.leaves, (run(network), run(network.clone(**change)))), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=2e-4)


def test_attention_weights_are_distributions_and_do_not_change_the_feature(micro):
    network, variables, images = micro
    feature, weights = network.apply(variables, images, return_attention=True)
    assert weights.shape == (2, 6, 2, 9, 9)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(feature, network.apply(variables, images), rtol=1e-5, atol=1e-6)


def test_dropping_both_branches_of_every_block_leaves_the_class_token(micro):
    network, variables, images = micro
    nothing = jnp.zeros((2, 2, len(images)))
    features = network.apply(variables, images, keep=nothing)
    np.testing.assert_allclose(features, jnp.broadcast_to(features[:1], features.shape), rtol=1e-6)


def test_drop_path_keeps_the_expectation_and_never_drops_the_first_block():
    drawn = layers.drop_path_multipliers(jax.random.key(0), layers.drop_path_rates(0.4, 5), 20_000)
    np.testing.assert_allclose(drawn.mean(-1), 1, atol=0.02)
    assert (drawn[0] == 1).all()
    assert set(np.unique(drawn[4]).round(4)) == {0.0, np.float32(1 / 0.6).round(4)}


# Bounds relative to the largest entry: rounding of sums of a few hundred terms.
TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 3e-2}


@pytest.fixture(params=TOLERANCE)
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield jnp.dtype(request.param)


def draw(seed, *shape, dtype):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def assert_equal_with_gradients(fast, plain, arguments, dtype):
    """Compares values and pullbacks; the plain form is computed in the next wider type where the type is 16 bits."""
    wide = jnp.float32 if dtype == jnp.bfloat16 else dtype
    value, pull = jax.vjp(jax.jit(fast), *arguments)
    expected, pull_expected = jax.vjp(plain, *(x.astype(wide) for x in arguments))
    g = draw(9, *value.shape, dtype=dtype)
    assert value.dtype == dtype
    for actual, wanted in zip((value, *pull(g)), (expected, *pull_expected(g.astype(wide))), strict=True):
        assert actual.dtype == dtype
        difference = float(jnp.abs(actual.astype(wide) - wanted).max())
        assert difference <= TOLERANCE[dtype.name] * float(jnp.abs(wanted).max())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("scale", [0.25, 64**-0.5])
def test_attention(scale, causal, dtype):
    def plain(qkv):
        q, k, v = jnp.moveaxis(qkv.reshape(*qkv.shape[:2], 3, 4, -1), 2, 0)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * scale
        if causal:
            scores += jnp.where(np.tri(qkv.shape[1], dtype=bool), 0.0, -jnp.inf)
        return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v).reshape(*qkv.shape[:2], -1)

    qkv = draw(0, 2, 9, 3 * 4 * 16, dtype=dtype)
    assert_equal_with_gradients(lambda y: layers.attention(y, 4, scale, causal), plain, (qkv,), dtype)


@pytest.mark.parametrize("stride", [8, 5])
def test_patch_embedding_is_a_convolution(stride, dtype):
    size = vit.SIZES["vit_micro"]
    # Neither side is a multiple of the patch: the rest is left out.
    images, kernel, bias = (
        draw(0, 2, 34, 21, 3, dtype=dtype),
        draw(1, 8, 8, 3, size.width, dtype=dtype),
        draw(2, size.width, dtype=dtype),
    )
    plain = nn.Conv(size.width, (8, 8), (stride, stride), padding="VALID")

    def as_tokens(x, w, b):
        maps = plain.apply({"params": {"kernel": w, "bias": b}}, x)
        return maps.reshape(len(x), -1, size.width)

    def embed(x, w, b):
        return vit.PatchEmbed(size, stride).apply({"params": {"kernel": w, "bias": b}}, x)

    assert_equal_with_gradients(embed, as_tokens, (images, kernel, bias), dtype)
