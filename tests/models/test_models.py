"""Sizes of the networks, layers against slow obvious forms, and options that must not change results."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.models import layers, resnet, vit
from mmreid_jax.models.heads import BNNeck

# Exact parameter counts for 256x128 images (vit_micro, vit_mini: 64x32); a new size needs a line here.
PARAMETERS = {
    "vit_base": 85_746_432,
    "vit_small": 47_933_184,
    "deit_small": 21_639_552,
    "deit_tiny": 5_511_360,
    "vit_mini": 321_120,
    "vit_micro": 32_736,
    "clip_vit_b16": 85_747_200,
    "clip_vit_b16_projected": 86_140_416,
    "clip_vit_micro": 33_280,
}


def abstract(model, *arguments):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), *arguments))


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", vit.SIZES)
def test_parameter_count(name):
    size = (64, 32) if vit.SIZES[name].patch == 8 else (256, 128)
    network = vit.VisionTransformer(vit.SIZES[name], size)
    assert count(abstract(network, jnp.zeros((1, *size, 3)))) == PARAMETERS[name]


def test_resnet50_has_torchvisions_parameters():
    assert count(abstract(resnet.ResNet(classes=1000), jnp.zeros((1, 64, 32, 3)), False)["params"]) == 25_557_032


@pytest.mark.parametrize(("size", "stride", "grid"), [((256, 128), 16, (16, 8)), ((256, 128), 12, (21, 10))])
def test_patch_grid(size, stride, grid):
    assert vit.patch_grid(size, 16, stride) == grid


def test_side_information_has_a_table_only_where_it_tells_something_apart():
    rows = {counts: vit.side_information_rows(*counts) for counts in ((4, 2), (4, 1), (1, 2), (1, 1), (0, 0))}
    assert list(rows.values()) == [8, 4, 2, 0, 0]


@pytest.fixture
def micro():
    network = vit.VisionTransformer(vit.SIZES["vit_micro"], (32, 16), drop_path=0.5)
    images = jax.random.normal(jax.random.key(1), (6, 32, 16, 3))
    return network, network.init(jax.random.key(0), images), images


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


@pytest.mark.parametrize("shape", [(6, 5), (6, 4, 3, 5)])
def test_batch_norm_matches_the_formulas_of_pytorch(shape, x64):
    x = np.random.default_rng(0).normal(3, 2, shape)
    layer = layers.TorchBatchNorm()
    variables = layer.init(jax.random.key(0), x, True)
    y, new = layer.apply(variables, x, True, mutable=["batch_stats"])
    flat = x.reshape(-1, shape[-1])
    mean, var = flat.mean(0), flat.var(0)
    np.testing.assert_allclose(np.asarray(y).reshape(flat.shape), (flat - mean) / np.sqrt(var + 1e-5), atol=1e-12)
    stats = new["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, atol=1e-7)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * flat.var(0, ddof=1), atol=1e-7)
    assert stats["count"] == 1


def test_groups_are_successive_calls(x64):
    x = np.random.default_rng(0).normal(size=(6, 4, 3, 5))
    whole, single = layers.TorchBatchNorm(groups=3), layers.TorchBatchNorm()
    variables = whole.init(jax.random.key(0), x, True)
    y, new = whole.apply(variables, x, True, mutable=["batch_stats"])
    parts, reached = [], variables
    for part in np.split(x, 3):
        out, stats = single.apply(reached, part, True, mutable=["batch_stats"])
        parts.append(out)
        reached = {**reached, **stats}
    np.testing.assert_allclose(y, np.concatenate(parts), atol=1e-12)
    for wanted, got in zip(jax.tree.leaves(reached["batch_stats"]), jax.tree.leaves(new["batch_stats"]), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-7)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (1, 2, 0), (3, 2, 1), (7, 2, 3)])
def test_convolution_matches_a_loop(kernel, stride, padding, x64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 8, 6, 3))
    layer = layers.Conv(4, kernel, stride, padding)
    weight = rng.normal(size=(kernel, kernel, 3, 4))
    y = np.asarray(layer.apply({"params": {"kernel": weight}}, x))
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    for row in range(y.shape[1]):
        for column in range(y.shape[2]):
            top, left = row * stride, column * stride
            window = padded[:, top : top + kernel, left : left + kernel]
            np.testing.assert_allclose(y[:, row, column], np.einsum("bhwi,hwio->bo", window, weight), atol=1e-12)


def test_bnneck_is_linear_in_its_classifier():
    neck = BNNeck(7)
    features = jax.random.normal(jax.random.key(0), (5, 4))
    variables = neck.init(jax.random.key(1), features, False)
    after, logits = neck.apply(variables, features, False)
    np.testing.assert_allclose(logits, after @ variables["params"]["classifier"]["kernel"], rtol=1e-5)
