"""Base and AGW: their switches, streams, losses, groups of parameters and starting weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import agw_llcm, agw_regdb, agw_sysu, base_regdb, base_sysu
from mmreid_jax.convert import layout as layouts
from mmreid_jax.convert import resnet as resnet_layout
from mmreid_jax.convert import store
from mmreid_jax.errors import UserError
from mmreid_jax.losses import identity, triplet, weighted_triplet
from mmreid_jax.methods import base
from mmreid_jax.models.resnet import RESNETS, ResNet
from mmreid_jax.testing import tiny
from mmreid_jax.training import optimizers


def test_base_has_none_of_agw_s_additions():
    plain, agw = base_sysu.get_config(), agw_sysu.get_config()
    assert (tuple(plain.model.non_local), plain.model.pooling, plain.loss.triplet) == ((), "avg", "batch_hard")
    assert (len(agw.model.non_local), agw.model.pooling, agw.loss.triplet) == (5, "gem", "weighted")
    assert plain.optim == agw.optim


@pytest.mark.parametrize(
    ("module", "identities"), [(base_sysu, 395), (agw_sysu, 395), (agw_regdb, 206), (agw_llcm, 713)]
)
def test_experiments_have_the_published_sizes(module, identities):
    method = base.build(module.get_config(), base.DataFacts(identities, 6, 1, ("rgb", "nir")))
    params = jax.eval_shape(method.init, jax.random.key(0))["params"]
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))  # noqa: E731
    # The trunk with two stems; non-local blocks; neck and classifier.
    blocks = 28_687 if module is not base_sysu else 0
    assert count(params["backbone"]) == 23_517_568 + blocks
    assert count(params["bottleneck"]) == 4096
    assert count(params["classifier"]) == 2048 * identities


def test_regdb_differs_in_its_data_alone():
    for sysu, regdb in ((base_sysu, base_regdb), (agw_sysu, agw_regdb)):
        one, other = sysu.get_config(), regdb.get_config()
        assert (one.data.dataset, other.data.dataset) == ("sysu_mm01", "regdb")
        one.data.dataset = other.data.dataset
        assert one == other


@pytest.mark.parametrize("form", ["batch_hard", "weighted"])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 2.0)])
def test_the_loss_is_the_weighted_sum_of_its_terms(form, weights, x64):
    entropy_weight, weight = weights
    config, method = tiny.method("agw", loss__triplet=form, loss__ce_weight=entropy_weight, loss__triplet_weight=weight)
    batch = tiny.batch(config)
    labels, count = np.tile(batch["identity"], 2), 2 * len(batch["identity"])
    rng = np.random.default_rng(1)
    pooled, logits = jnp.asarray(rng.normal(size=(count, 5))), jnp.asarray(rng.normal(size=(count, 8)))
    # The losses alone: the networks have their own tests.
    method.forward = lambda *_: ({"pool": pooled, "logits": logits}, {})
    total, (terms, _, _) = method.loss({}, batch, None, 0, {})
    expected = {
        "batch_hard": lambda: triplet.batch_hard_triplet(pooled, labels, 0.3),
        "weighted": lambda: weighted_triplet.weighted_triplet(pooled, labels),
    }[form]()
    entropy = float(identity.cross_entropy(logits, labels))
    assert terms["ce"] == pytest.approx(entropy)
    assert terms["triplet"] == pytest.approx(float(expected[0]))
    assert total == pytest.approx(entropy_weight * entropy + weight * float(expected[0]))
    assert terms["ranked"] == pytest.approx(np.mean(np.asarray(expected[1][1]) >= np.asarray(expected[1][0])))
    right = np.asarray(logits.argmax(-1)) == labels
    assert terms["accuracy_rgb"] == pytest.approx(right[: count // 2].mean())
    assert terms["accuracy_nir"] == pytest.approx(right[count // 2 :].mean())


@pytest.mark.slow(short=True)
def test_one_modality_alone_gives_what_both_together_give():
    config, method = tiny.method("agw")
    variables, batch = jax.jit(method.init)(jax.random.key(0)), tiny.batch(config)
    embed = jax.jit(method.embed)
    both = embed(variables, batch)
    assert set(both) == {"fc_rgb", "fc_nir", "pool_rgb", "pool_nir"}
    for name in method.facts.modalities:
        alone = embed(variables, {**batch, "images": {name: batch["images"][name]}})
        for feature, value in alone.items():
            np.testing.assert_allclose(value, both[feature], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(np.linalg.norm(value, axis=1), 1.0, rtol=1e-5)
    assert {name: maps.shape[0] for name, maps in jax.eval_shape(method.maps, variables, batch).items()} == {
        name: len(batch["identity"]) for name in ("rgb", "nir")
    }


def test_the_trunk_trains_at_a_tenth_and_the_neck_s_bias_not_at_all():
    _, method = tiny.method("agw")
    params = jax.eval_shape(method.init, jax.random.key(0))["params"]
    ones = jax.tree.map(lambda x: jnp.ones(x.shape), params)
    optimizer = method.optimizer(ones, np.array([10, 20]))
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, ones), optimizer.init(ones), ones)
    paths, leaves = jax.tree.leaves(optimizers.paths(params)), jax.tree.leaves(updates)
    for path, update in zip(paths, leaves, strict=True):
        # Weight decay alone, with Nesterov's momentum, in the first epoch of ten that warm up: -lr * decay * (1 + 0.9).
        rate = 0.001 if path.startswith("backbone/") else 0.0 if path == "bottleneck/bias" else 0.01
        np.testing.assert_allclose(update, -rate * 5e-4 * 1.9, rtol=1e-4, err_msg=path)


def test_new_layers_start_as_the_authors_do():
    _, method = tiny.method("agw")
    params = jax.jit(method.init)(jax.random.key(0))["params"]
    scale = np.asarray(params["bottleneck"]["scale"])
    assert 0 < scale.std() < 0.02
    assert abs(scale.mean() - 1) < 0.02
    assert 0.0005 < np.asarray(params["classifier"]["kernel"]).std() < 0.002
    block = params["backbone"]["shared"]["non_local1_0"]
    assert not np.asarray(block["norm"]["scale"]).any()
    assert np.asarray(block["theta"]["kernel"]).any()


@pytest.mark.slow(short=True)
def test_imagenet_weights_go_into_every_part(tmp_path):
    network = RESNETS["resnet_nano2"]
    single = jax.jit(lambda key: ResNet(**network).init(key, jnp.zeros((1, 32, 16, 3)), False))(jax.random.key(7))
    exported = layouts.export_state(resnet_layout.layout(), jax.tree.map(np.asarray, single))
    imported, report = layouts.import_state(resnet_layout.layout(), exported)
    store.save(tmp_path / "weights", imported, store.meta_of(report, "resnet", imported))
    _, method = tiny.method("agw", init__backbone=str(tmp_path / "weights"))
    assert method.config.model.backbone == "resnet_nano2"
    streams = method.start(method.init(jax.random.key(0)))["params"]["backbone"]
    for stream, tree in streams.items():
        for name, module in tree.items():
            if not name.startswith("non_local"):
                jax.tree.map(np.testing.assert_array_equal, module, single["params"][name])
        assert set(tree) - {"non_local1_0"} <= set(single["params"]), stream
    assert "non_local1_0" in streams["shared"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model__pooling": "max"}, "avg, gem"),
        ({"loss__triplet": "squared_difference"}, "batch_hard, weighted"),
        ({"loss__triplet_form": "paper"}, "code, softmax"),
        ({"model__shared_from": 9}, "shared_from is 9"),
        ({"model__backbone": "vit"}, "resnet50"),
        ({"eval__feature": "whole"}, "fc, pool"),
    ],
)
def test_what_it_cannot_run_it_refuses(change, said):
    with pytest.raises(UserError, match=said):
        tiny.method("agw", **change)


def one_spectrum(**changes):
    """(config, AGW) on visible images alone, all of whose parts are shared."""
    config = tiny.config("agw", model__shared_from=0, **changes)
    return config, base.build(config, base.DataFacts(8, 3, 2, ("rgb",)))


@pytest.mark.slow(short=True)
@pytest.mark.parametrize("weighted", [False, True])
def test_one_spectrum_is_the_shared_network_of_two_on_the_images_of_both(weighted, x64):
    changes = {"loss__triplet": "weighted" if weighted else "batch_hard"}
    _, alone = one_spectrum(**changes)
    config, both = tiny.method("agw", model__shared_from=0, **changes)
    variables = jax.jit(both.init)(jax.random.key(0))
    fresh = jax.eval_shape(alone.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, fresh)
    batch = tiny.batch(config, dtype=np.float64)
    joined = {
        **batch,
        "images": {"rgb": np.concatenate([batch["images"]["rgb"], batch["images"]["nir"]])},
        "identity": np.tile(batch["identity"], 2),
    }
    key, step = jax.random.key(1), jnp.zeros((), jnp.int32)
    expected, (of_both, statistics, _) = jax.jit(both.loss)(variables, batch, key, step, {})
    total, (terms, new, _) = jax.jit(alone.loss)(variables, joined, key, step, {})
    np.testing.assert_allclose(total, expected, rtol=1e-10)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), new, statistics)
    assert terms["accuracy_rgb"] == pytest.approx((of_both["accuracy_rgb"] + of_both["accuracy_nir"]) / 2)
    assert set(terms) == set(of_both) - {"accuracy_nir"}
    features = jax.jit(alone.embed)(variables, joined)
    assert set(features) == {"fc_rgb", "pool_rgb"}
    halves = jax.jit(both.embed)(variables, batch)
    np.testing.assert_allclose(
        features["fc_rgb"], np.concatenate([halves["fc_rgb"], halves["fc_nir"]]), rtol=1e-9, atol=1e-12
    )


def test_one_spectrum_is_compared_with_itself():
    _, alone = one_spectrum()
    assert alone.comparisons() == [
        base.Comparison("fc", "fc_rgb", ("rgb",), ("rgb",)),
        base.Comparison("pool", "pool_rgb", ("rgb",), ("rgb",)),
    ]


@pytest.mark.parametrize("name", ["agw", "caj", "ddag", "hetero_center"])
def test_one_spectrum_needs_a_network_without_parts_for_two(name):
    with pytest.raises(UserError, match="set it to 0" if name == "agw" else "compares two modalities"):
        base.build(tiny.config(name), base.DataFacts(8, 3, 2, ("rgb",)))
