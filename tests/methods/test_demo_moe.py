"""DeMo: its sizes, groups, forms and refusals, the trunk that it shares with MDReID, and the authors' files."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import demo_moe_msvr310, demo_moe_rgbnt100, demo_moe_rgbnt201
from mmreid_jax.convert import known
from mmreid_jax.convert import layout as layouts
from mmreid_jax.errors import UserError
from mmreid_jax.methods import base
from mmreid_jax.testing import goldens, tiny
from mmreid_jax.training import optimizers

MODALITIES = ("rgb", "nir", "tir")


@functools.cache
def fresh(**overrides):
    """Initial variables of a tiny method."""
    _, method = tiny.method("demo_moe", **overrides)
    return jax.jit(method.init)(jax.random.key(0))


def test_the_experiment_has_the_published_size():
    method = base.build(demo_moe_rgbnt201.get_config(), base.DataFacts(171, 4, 1, MODALITIES))
    params = base.shapes(method)["params"]
    counted = sum(x.size for x in jax.tree.leaves(params))
    # 98.798 million as counted from the authors' state_dict with running statistics, which are no parameters.
    assert counted == pytest.approx(98.79e6, abs=0.02e6)
    blocks = sum(x.size for name, x in params["backbone"].items() if name != "sie_embed" for x in jax.tree.leaves(x))
    assert blocks == pytest.approx(86.14e6, abs=0.01e6)


def test_experiments_differ_in_data_heads_and_batches_alone():
    people, buses, cars = (
        module.get_config().to_dict() for module in (demo_moe_rgbnt201, demo_moe_rgbnt100, demo_moe_msvr310)
    )
    for other in (buses, cars):
        assert {name for name in people if people[name] != other[name]} <= {"data", "model", "optim", "train"}
        assert {key for key in people["model"] if people["model"][key] != other["model"][key]} == {
            "heads",
            "joint_head",
        }
        changed = {key for key in people["optim"] if people["optim"][key] != other["optim"][key]}
        assert changed <= {"epochs", "warmup_epochs"}


def test_rates_and_what_never_changes():
    config, method = tiny.method("demo_moe")
    params = base.shapes(method)["params"]
    options = optimizers.OptimizerOptions.of(config.optim)
    groups = optimizers.assign(options.groups([optimizers.Group(each, frozen=True) for each in method.frozen]), params)
    named = zip(jax.tree.leaves(optimizers.paths(params)), jax.tree.leaves(groups), strict=True)
    for path, group in named:
        if path.endswith("bottleneck/bias"):
            assert group.frozen
        elif path.startswith("backbone/") and path != "backbone/sie_embed":
            assert config.optim.lr * group.lr_factor == pytest.approx(5e-6), path
        else:
            assert group.lr_factor == (2.0 if "bias" in path else 1.0), path


@pytest.mark.slow(short=True)
def test_the_loss_is_the_weighted_sum_of_its_terms():
    for joint, names in ((True, ["mixture", "global"]), (False, ["mixture", *MODALITIES])):
        overrides = {"model__joint_head": joint, "model__dropout": 0.0}
        config, method = tiny.method("demo_moe", **overrides, loss__ce_weight=0.5, loss__triplet_weight=2.0)
        assert list(method.widths) == names
        total, (terms, _, _) = method.loss(fresh(**overrides), tiny.batch(config), jax.random.key(0), 0, {})
        summed = sum(0.5 * terms[f"ce_{name}"] + 2.0 * terms[f"triplet_{name}"] for name in names)
        assert float(total) == pytest.approx(float(summed), rel=1e-5)


@pytest.mark.slow(short=True)
@pytest.mark.parametrize("fusion", ["experts", "queries", "none"])
def test_features_of_every_form(fusion):
    config, method = tiny.method("demo_moe", model__fusion=fusion)
    found = jax.jit(method.embed)(fresh(model__fusion=fusion), tiny.batch(config))
    width, count = method.backbone.features, config.train.identities_per_batch * config.train.images_per_identity
    widths = {"global": 3 * width, **dict.fromkeys(MODALITIES, width)}
    if fusion != "none":
        widths["mixture"] = 7 * width
    widths["all"] = 3 * width + widths.get("mixture", 0)
    assert {name: x.shape for name, x in found.items()} == {name: (count, each) for name, each in widths.items()}
    np.testing.assert_array_equal(found["global"], np.concatenate([found[m] for m in MODALITIES], axis=1))


@pytest.mark.slow(short=True)
def test_the_camera_is_heard_and_a_sample_does_not_depend_on_its_batch():
    config, method = tiny.method("demo_moe")
    variables, batch = fresh(), tiny.batch(config)
    embed = jax.jit(method.embed)
    whole = embed(variables, batch)["all"]
    one = {name: x[:1] for name, x in batch.items() if name != "images"}
    one["images"] = {name: x[:1] for name, x in batch["images"].items()}
    np.testing.assert_allclose(embed(variables, one)["all"], whole[:1], rtol=1e-4, atol=1e-5)
    other = embed(variables, {**batch, "camera": (batch["camera"] + 1) % 3})["all"]
    assert float(jnp.abs(other - whole).max()) > 1e-4
    _, deaf = tiny.method("demo_moe", model__side_camera=False)
    assert "sie_embed" not in base.shapes(deaf)["params"]["backbone"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"model__fusion": "sum"}, r"config\.model\.fusion is 'sum'; choose one of experts, queries, none"),
        ({"model__heads": 3}, r"config\.model\.heads is 3, which does not divide the 16 channels"),
        ({"model__backbone": "resnet50"}, r"config\.model\.backbone is 'resnet50'; choose one of vit_base"),
        ({"eval__feature": "after"}, r"config\.eval\.feature is 'after'; choose one of all, global, mixture"),
        ({"model__fusion": "none", "eval__feature": "mixture"}, "there is none"),
    ],
)
def test_what_cannot_be_is_refused(overrides, said):
    with pytest.raises(UserError, match=said):
        tiny.method("demo_moe", **overrides)


def test_attention_is_that_of_the_trunk():
    config, method = tiny.method("demo_moe")
    batch = tiny.batch(config)
    attended = jax.jit(method.attend)(fresh(), batch)
    places = 1 + method.grid[0] * method.grid[1]
    for weights in attended.values():
        assert weights.shape == (2, len(batch["identity"]), 2, places, places)
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-4)


class TestFiles:
    @pytest.mark.slow(short=True)
    @pytest.mark.parametrize("joint", [True, False])
    def test_there_and_back(self, joint):
        _, method = tiny.method("demo_moe", model__joint_head=joint)
        variables = jax.tree.map(np.asarray, fresh(model__joint_head=joint))
        written = layouts.export_state(method.convert_layouts()["demo_moe"], variables)
        assert ("classifier.weight" in written) == joint
        # The file says by itself which heads it has.
        read, report = layouts.import_state(known.named("demo_moe"), written)
        assert set(report.used) == set(written)
        for wanted, got in zip(jax.tree.leaves(variables), jax.tree.leaves(read), strict=True):
            np.testing.assert_array_equal(wanted, got)

    @pytest.mark.slow(short=True)
    def test_names_are_those_of_the_authors(self):
        for path in goldens.cases("demo_moe"):
            case = goldens.load(path).json
            if "heads" not in case:
                continue
            entries = goldens.recipe().state_dict(case["seed"], case["state_dict"])
            read, report = layouts.import_state(known.named("demo_moe"), dict(entries))
            assert set(report.used) == set(entries)
            assert read["params"]["fusion"]["mixture"]["experts"]["project"]["kernel"].shape[:2] == (case["heads"], 7)
            break

    def test_an_ablation_has_no_file(self):
        _, method = tiny.method("demo_moe", model__fusion="none")
        assert method.convert_layouts() == {}


class TestMissing:
    @staticmethod
    def lacking(rate, key=0):
        """Which images of a batch of noise are zero: bool [B, M]."""
        config, method = tiny.method("demo_moe", train__missing_modalities=rate, train__images_per_identity=500)
        batch = tiny.batch(config)
        given = {**batch, "images": {name: x[:, :8, :8] for name, x in batch["images"].items()}}
        made = method.with_missing(given, jax.random.key(key))["images"]
        return np.stack([~np.asarray(made[name]).any((1, 2, 3)) for name in MODALITIES], axis=1)

    def test_a_share_of_samples_lacks_some_but_never_all(self):
        gone = self.lacking(0.5)
        assert not self.lacking(0.0).any()
        assert not gone.all(1).any()
        assert gone.any(1).mean() == pytest.approx(0.5, abs=0.05)
        # Each of the six sets that leave some is as likely as the others.
        patterns, counts = np.unique(gone[gone.any(1)], axis=0, return_counts=True)
        assert len(patterns) == 6
        np.testing.assert_allclose(counts / counts.sum(), 1 / 6, atol=0.04)

    @pytest.mark.slow(short=True)
    @pytest.mark.parametrize("name", ["demo_moe", "mdreid"])
    def test_the_loss_sees_what_is_left(self, name):
        losses = []
        for rate in (0.0, 1.0):
            config, method = tiny.method(name, train__missing_modalities=rate)
            variables = jax.jit(method.init)(jax.random.key(0))
            losses.append(float(method.loss(variables, tiny.batch(config), jax.random.key(1), 0, {})[0]))
        assert np.isfinite(losses).all()
        assert losses[0] != losses[1]
