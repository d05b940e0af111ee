"""MDReID: its size, groups, losses and features, the tied token, and the authors' files."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import mdreid_msvr310, mdreid_rgbnt100, mdreid_rgbnt201
from mmreid_jax.convert import known
from mmreid_jax.convert import layout as layouts
from mmreid_jax.methods import base
from mmreid_jax.testing import goldens, tiny
from mmreid_jax.training import optimizers

MODALITIES = ("rgb", "nir", "tir")


@functools.cache
def fresh():
    """Initial variables of a tiny method."""
    _, method = tiny.method("mdreid")
    return jax.jit(method.init)(jax.random.key(0))


def test_the_experiment_has_the_published_size():
    method = base.build(mdreid_rgbnt201.get_config(), base.DataFacts(171, 4, 1, MODALITIES))
    counted = sum(x.size for x in jax.tree.leaves(base.shapes(method)["params"]))
    # 87.207 million with two heads that are never run, which do not exist here.
    unused = 2 * (1024 * 171 + 2 * 1024)
    assert counted + unused == pytest.approx(87.207e6, abs=0.01e6)


@pytest.mark.parametrize(
    ("module", "rate"), [(mdreid_rgbnt201, 3.5e-4), (mdreid_rgbnt100, 1.5e-4), (mdreid_msvr310, 3.5e-4)]
)
def test_rates(module, rate):
    config = module.get_config()
    config.model.backbone, config.data.image_size = "clip_vit_micro", (32, 16)
    method = base.build(config, tiny.facts("mdreid"))
    params, options = base.shapes(method)["params"], optimizers.OptimizerOptions.of(config.optim)
    groups = optimizers.assign(options.groups([optimizers.Group(each, frozen=True) for each in method.frozen]), params)
    assert options.lr == rate
    named = zip(jax.tree.leaves(optimizers.paths(params)), jax.tree.leaves(groups), strict=True)
    for path, group in named:
        if path.endswith("bottleneck/bias") or path.startswith("necks/both/"):
            assert group.frozen
        elif path.startswith("backbone/") and not path.endswith(("sie_embed", "pos_embed")):
            assert rate * group.lr_factor == pytest.approx(5e-6), path
        else:
            assert group.lr_factor == 1.0, path


@pytest.mark.slow(short=True)
def test_the_loss_is_the_weighted_sum_of_its_terms():
    weights = {"ce": 0.5, "triplet": 2.0, "shared": 0.7, "orthogonality": 0.3, "disentangling": 0.2}
    config, method = tiny.method("mdreid", **{f"loss__{name}_weight": value for name, value in weights.items()})
    total, (terms, stats, _) = method.loss(fresh(), tiny.batch(config), jax.random.key(0), 0, {})
    of = {name: 0.5 * terms[f"ce_{name}"] + 2.0 * terms[f"triplet_{name}"] for name in (*MODALITIES, "shared")}
    summed = sum(of[name] for name in MODALITIES) + 0.7 * of["shared"]
    summed += 0.3 * terms["orthogonality"] + 0.2 * terms["disentangling"]
    assert float(total) == pytest.approx(float(summed), rel=1e-5)
    counts = {name: int(tree["bottleneck"]["count"]) for name, tree in stats["necks"].items()}
    assert counts == {**dict.fromkeys(MODALITIES, 1), "shared": 1, "both": 3}


def test_features_of_a_modality_do_not_depend_on_the_others():
    config, method = tiny.method("mdreid")
    batch, embed = tiny.batch(config), jax.jit(method.embed)
    whole = embed(fresh(), batch)
    width = method.backbone.features
    assert whole["all"].shape[1] == 6 * width
    order = [f"{kind}_{name}" for kind in ("specific", "shared") for name in MODALITIES]
    np.testing.assert_array_equal(whole["all"], np.concatenate([whole[name] for name in order], axis=1))
    grey = {name: jnp.zeros_like(x) if name == "nir" else x for name, x in batch["images"].items()}
    without = embed(fresh(), {**batch, "images": grey})
    for name in ("rgb", "tir"):
        np.testing.assert_allclose(without[name], whole[name], rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(without["nir"] - whole["nir"]).max()) > 1e-3


@pytest.mark.slow(short=True)
def test_tokens_are_told_apart_by_position_and_camera_alone():
    config, method = tiny.method("mdreid", model__side_camera=False)
    variables = jax.jit(method.init)(jax.random.key(0))
    assert variables["params"]["backbone"]["cls_token"].shape[1] == 1
    table = variables["params"]["backbone"]["pos_embed"]
    variables["params"]["backbone"]["pos_embed"] = table.at[:, 1].set(table[:, 0])
    specific, shared = method.features(variables, tiny.batch(config))
    np.testing.assert_allclose(specific, shared, rtol=1e-4, atol=1e-5)


def test_attention_leaves_the_second_token_out():
    config, method = tiny.method("mdreid")
    places = 1 + method.grid[0] * method.grid[1]
    attended = jax.eval_shape(method.attend, fresh(), tiny.batch(config))
    assert {x.shape[-2:] for x in attended.values()} == {(places, places)}


class TestFiles:
    def test_there_and_back(self):
        _, method = tiny.method("mdreid")
        variables = jax.tree.map(np.asarray, fresh())
        written = layouts.export_state(method.convert_layouts()["mdreid"], variables)
        np.testing.assert_array_equal(
            written["BACKBONE.base.add_image_token"], written["BACKBONE.base.class_embedding"]
        )
        read, report = layouts.import_state(known.named("mdreid"), written)
        assert set(report.used) | set(report.dropped) == set(written)
        for wanted, got in zip(jax.tree.leaves(variables), jax.tree.leaves(read), strict=True):
            np.testing.assert_array_equal(wanted, got)

    @pytest.mark.slow(short=True)
    def test_names_are_those_of_the_authors(self):
        """A strict loader finds every key in an exported file."""
        case = next(c for c in (goldens.load(p).json for p in goldens.cases("mdreid")) if "aliases" in c)
        entries = dict(goldens.recipe().state_dict(case["seed"], case["state_dict"]))
        read, _ = layouts.import_state(known.named("mdreid"), entries)
        written = layouts.export_state(known.named("mdreid"), read)
        assert {name: x.shape for name, x in written.items()} == {name: x.shape for name, x in entries.items()}
