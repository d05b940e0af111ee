"""Hetero-Center: its streams, what is compared, its losses, its groups of parameters, its checkpoints."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.convert import known
from mmreid_jax.convert import layout as layouts
from mmreid_jax.errors import UserError
from mmreid_jax.losses import centers, identity
from mmreid_jax.methods import base
from mmreid_jax.testing import tiny
from mmreid_jax.training import optimizers
from tests.methods.variants import noise


def test_one_modality_alone_gives_what_both_together_give():
    config, method = tiny.method("hetero_center")
    variables, batch = noise(method), tiny.batch(config)
    embed = jax.jit(method.embed)
    both = embed(variables, batch)
    assert set(both) == {"fc_rgb", "fc_nir", "pool_rgb", "pool_nir"}
    for name in method.facts.modalities:
        alone = embed(variables, {**batch, "images": {name: batch["images"][name]}})
        assert set(alone) == {f"fc_{name}", f"pool_{name}"}
        for feature, value in alone.items():
            np.testing.assert_allclose(value, both[feature], rtol=1e-5, atol=1e-6)
    maps = jax.jit(method.maps)(variables, batch)
    assert set(maps) == {"rgb", "nir"}


def test_modalities_share_nothing_before_the_strips():
    config, method = tiny.method("hetero_center")
    variables, batch = noise(method), tiny.batch(config)
    assert set(variables["params"]["backbone"]) == {"visible", "infrared"}
    before = jax.jit(method.embed)(variables, batch)
    visible = jax.tree.map(lambda x: 1.5 * x, variables["params"]["backbone"]["visible"])
    moved = {**variables["params"], "backbone": {**variables["params"]["backbone"], "visible": visible}}
    after = jax.jit(method.embed)({**variables, "params": moved}, batch)
    np.testing.assert_array_equal(before["fc_nir"], after["fc_nir"])
    assert not np.allclose(before["fc_rgb"], after["fc_rgb"])


def test_every_part_of_a_feature_has_length_one():
    config, method = tiny.method("hetero_center")
    features = jax.jit(method.embed)(noise(method), tiny.batch(config))
    for value in features.values():
        parts = np.asarray(value).reshape(len(value), config.model.strips, -1)
        np.testing.assert_allclose(np.linalg.norm(parts, axis=-1), 1.0, rtol=1e-5)
    assert not config.eval.normalize


def test_both_features_are_compared_both_ways_the_selecting_one_first():
    _, method = tiny.method("hetero_center", eval__feature="pool")
    found = [(c.feature, c.gallery_feature, c.query, c.gallery) for c in method.comparisons()]
    one, other = ("nir",), ("rgb",)
    assert found == [
        ("pool_nir", "pool_rgb", one, other),
        ("pool_rgb", "pool_nir", other, one),
        ("fc_nir", "fc_rgb", one, other),
        ("fc_rgb", "fc_nir", other, one),
    ]
    assert [c.name for c in method.comparisons()][:2] == ["pool nir to rgb", "pool rgb to nir"]


@pytest.mark.parametrize("distance", ["l2", "l1", "cos"])
@pytest.mark.parametrize("weights", [(1.0, 0.5), (0.5, 0.0)])
def test_the_loss_is_the_weighted_sum_over_strips(distance, weights):
    entropy_weight, weight = weights
    config, method = tiny.method(
        "hetero_center", loss__distance=distance, loss__hc_weight=weight, loss__ce_weight=entropy_weight
    )
    batch = tiny.batch(config)
    labels, count = batch["identity"], config.model.strips
    rng = np.random.default_rng(1)
    embeddings = rng.normal(size=(2 * len(labels), count, 5)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    logits = jnp.asarray(rng.normal(size=(2 * len(labels), count, 8)), jnp.float32)
    # The losses alone: the networks have their own tests.
    method.forward = lambda *_: ({"embeddings": jnp.asarray(embeddings), "logits": logits}, {})
    total, (terms, _, _) = method.loss({}, batch, None, 0, {})
    entropy = sum(float(identity.cross_entropy(logits[:, i], jnp.tile(labels, 2))) for i in range(count))
    apart = sum(
        float(centers.hetero_center_loss(np.split(embeddings[:, i], 2), jnp.asarray(labels), distance=distance))
        for i in range(count)
    )
    assert terms["ce"] == pytest.approx(entropy, rel=1e-5)
    assert terms["hc"] == pytest.approx(apart, rel=1e-4)
    assert total == pytest.approx(entropy_weight * entropy + weight * apart, rel=1e-5)
    right = np.asarray(logits.argmax(-1) == np.tile(labels, 2)[:, None])
    assert terms["accuracy_rgb"] == pytest.approx(right[: len(labels)].mean())
    assert terms["accuracy_nir"] == pytest.approx(right[len(labels) :].mean())


def test_positional_chunks_are_the_same_on_a_sampler_s_batch():
    config, method = tiny.method("hetero_center")
    _, other = tiny.method("hetero_center", loss__grouping="positional")
    variables, batch = noise(method), tiny.batch(config)
    losses = [jax.jit(m.loss)(variables, batch, jax.random.key(0), 0, {})[1][0]["hc"] for m in (method, other)]
    assert losses[0] == pytest.approx(float(losses[1]), rel=1e-5)


def test_backbones_train_at_a_tenth_and_everything_decays():
    _, method = tiny.method("hetero_center")
    params = jax.eval_shape(method.init, jax.random.key(0))["params"]
    ones = jax.tree.map(lambda x: jnp.ones(x.shape), params)
    optimizer = method.optimizer(ones, np.array([10, 20]))
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, ones), optimizer.init(ones), ones)
    paths, leaves = jax.tree.leaves(optimizers.paths(params)), jax.tree.leaves(updates)
    for path, update in zip(paths, leaves, strict=True):
        # Weight decay alone, with Nesterov's momentum: -lr * decay * (1 + 0.9).
        rate = 0.001 if path.startswith("backbone/") else 0.01
        np.testing.assert_allclose(update, -rate * 5e-4 * 1.9, rtol=1e-4, err_msg=path)


def test_dropout_takes_its_key():
    config, method = tiny.method("hetero_center", model__dropout=0.5)
    variables, batch = noise(method), tiny.batch(config)
    loss = jax.jit(lambda v, key: method.loss(v, batch, key, 0, {})[0])
    one, same, other = (float(loss(variables, jax.random.key(seed))) for seed in (1, 1, 2))
    assert one == same
    assert one != other


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model__backbone": "vit_micro"}, "resnet18"),
        ({"loss__distance": "l3"}, "l3"),
        ({"eval__feature": "whole"}, "fc, pool"),
        ({"train__micro_batches": 2}, "remat"),
        ({"model__num_classes": 2}, "num_classes"),
    ],
)
def test_options_that_do_not_exist_are_named(change, said):
    with pytest.raises(UserError, match=said):
        tiny.method("hetero_center", **change)


def test_three_modalities_are_too_many():
    with pytest.raises(UserError, match="two modalities"):
        base.build(tiny.config("hetero_center"), base.DataFacts(8, 3, 1, ("rgb", "nir", "tir")))


def test_imagenet_weights_go_into_both_backbones(tmp_path):
    from safetensors.numpy import save_file

    _, method = tiny.method("hetero_center")
    variables = noise(method)
    own = {collection: variables[collection]["backbone"]["visible"] for collection in variables}
    entries = layouts.export_state(known.named("resnet"), jax.tree.map(lambda x: x + 1, own))
    save_file(entries, tmp_path / "resnet.safetensors")
    _, method = tiny.method("hetero_center", init__backbone=str(tmp_path / "resnet.safetensors"))
    loaded = method.start(method.init(jax.random.key(1)))
    for stream in ("visible", "infrared"):
        for wanted, got in zip(
            *map(jax.tree.leaves, (own["params"], loaded["params"]["backbone"][stream])), strict=True
        ):
            np.testing.assert_array_equal(got, wanted + 1)
