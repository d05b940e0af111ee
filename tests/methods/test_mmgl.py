"""MMGL's pre-training: blind to labels, its options, and where its trunk goes."""

import contextlib
import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.commands.convert import write_safetensors
from mmreid_jax.convert import layout as layouts
from mmreid_jax.errors import UserError
from mmreid_jax.losses import permutation
from mmreid_jax.methods import visible_infrared
from mmreid_jax.models.two_stream import MODALITIES
from mmreid_jax.testing import tiny
from mmreid_jax.training import checkpoints

KEY = jax.random.key(0)


@functools.cache
def made(**overrides):
    """(config, method, variables that are not those of a fresh network)."""
    config, method = tiny.method("mmgl", **overrides)
    shift = lambda x: x + 0.125 if jnp.issubdtype(x.dtype, jnp.floating) else x + 1  # noqa: E731
    return config, method, jax.tree.map(shift, jax.jit(method.init)(KEY))


def saved(folder, **overrides):
    """A workdir with a pre-trained network."""
    config, method, variables = made(**overrides)
    checkpoints.keep_copy(folder, variables, config, method.facts)
    return str(folder)


def test_labels_change_no_bit():
    config, method, variables = made()
    batch = tiny.batch(config)
    labelled = {name: batch[name] + 5 for name in ("identity", "camera", "scene")}
    run = jax.jit(lambda batch: method.loss(variables, batch, KEY, jnp.asarray(0), {}))
    for one, other in zip(*(jax.tree.leaves(run(b)) for b in (batch, {**batch, **labelled})), strict=True):
        np.testing.assert_array_equal(one, other)
    method.loss(variables, {"images": batch["images"]}, KEY, jnp.asarray(0), {})


def test_labels_are_refused():
    with pytest.raises(UserError, match=r"config.data.labels is True"):
        tiny.method("mmgl", data__labels=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__stripes": 5}, "32 rows cannot be cut into 5 stripes"),
        ({"model__stripes": 1}, "config.model.stripes is 1; choose from 2"),
        ({"model__stripe_gap": 4}, "stripe_gap is 4, but stripes are 8 rows high"),
        ({"model__proj_head": "mlp"}, "config.model.proj_head is 'mlp'"),
        ({"loss__perm_reduction": "max"}, "config.loss.perm_reduction is 'max'"),
        ({"loss__cl_mode": "cycle"}, "config.loss.cl_mode"),
        ({"loss__perm_weight": 0.0, "loss__cl_weight": 0.0}, "nothing to learn"),
        ({"eval__feature": "fc"}, "config.eval.feature is 'fc'"),
    ],
)
def test_what_cannot_be_is_named(changes, message):
    with pytest.raises(UserError, match=message):
        tiny.method("mmgl", **changes)


def test_a_pair_shares_its_order_and_pairs_differ():
    _, method, _ = made()
    orders = method.orders(KEY, 64)
    np.testing.assert_array_equal(*orders.values())
    assert len(np.unique(orders["visible"], axis=0)) > 10
    _, method, _ = made(model__shared_in_pair=False)
    assert not np.array_equal(*method.orders(KEY, 64).values())


def test_all_orders_are_drawn():
    _, method, _ = made(model__stripes=4)
    seen = np.unique(method.orders(KEY, 2000)["visible"], axis=0)
    assert len(seen) == permutation.count(4)


@pytest.mark.slow
def test_a_branch_of_no_weight_does_not_exist():
    for weight, branch in (("loss__perm_weight", "order"), ("loss__cl_weight", "projections")):
        config, method, variables = made(**{weight: 0.0})
        assert set(variables["params"]) == {"backbone", "order", "projections"} - {branch}
        total, (terms, *_) = method.loss(variables, tiny.batch(config), KEY, jnp.asarray(0), {})
        term = "pcc" if branch == "order" else "perm"
        weight = config.loss.cl_weight if branch == "order" else 1.0
        np.testing.assert_allclose(total, weight * terms[term], rtol=1e-6)


@pytest.mark.slow
def test_contrast_begins_when_told():
    config, method, variables = made(loss__cl_start=3)
    totals = {}
    for step in (2, 3):
        totals[step], (terms, *_) = method.loss(variables, tiny.batch(config), KEY, jnp.asarray(step), {})
    np.testing.assert_allclose(totals[2], terms["perm"], rtol=1e-6)
    np.testing.assert_allclose(totals[3], terms["perm"] + config.loss.cl_weight * terms["pcc"], rtol=1e-6)


def test_noise_is_averaged_over_samples_and_depends_on_the_key():
    config, method, variables = made(loss__sinkhorn_noise=1.0, loss__sinkhorn_samples=3)
    found = [
        float(method.loss(variables, tiny.batch(config), jax.random.key(k), jnp.asarray(0), {})[1][0]["perm"])
        for k in (1, 2, 1)
    ]
    assert found[0] == found[2] != found[1]


@pytest.mark.slow
def test_examination_depends_on_the_index_of_an_image_alone():
    config, method, variables = made()
    images = {"rgb": tiny.batch(config)["images"]["rgb"]}
    index = np.arange(len(images["rgb"]), dtype=np.int32)
    whole = method.examine(variables, {"images": images, "index": index})
    assert {name.rsplit("_", 1)[0] for name in whole} == {"exact", "stripe", "row", "gap", "mixed"}
    assert all(((value >= 0) & (value <= 1)).all() and len(value) == len(index) for value in whole.values())
    part = method.examine(variables, {"images": {"rgb": images["rgb"][5:9]}, "index": index[5:9]})
    for name in ("exact_rgb", "stripe_rgb", "row_rgb", "gap_rgb"):
        np.testing.assert_array_equal(part[name], whole[name][5:9])


def test_explanation_shows_what_examination_counts():
    config, method, variables = made()
    images, index = tiny.batch(config)["images"], np.arange(16, dtype=np.int32)
    for name in ("rgb", "nir"):
        batch = {"images": {name: images[name]}, "index": index}
        shown, counted = method.explain(variables, batch), method.examine(variables, batch)
        right = (np.asarray(shown["orders"]) == shown["assigned"]).all(1)
        np.testing.assert_array_equal(counted[f"exact_{name}"], right)
        np.testing.assert_allclose(np.linalg.norm(shown["patches"], axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"model__shared_from": 0},
        {"model__perm_head_hidden": 6},
        {"model__proj_head": "conv", "model__proj_shared": True},
        {"loss__perm_weight": 0.0},
        {"loss__cl_weight": 0.0},
    ],
)
def test_the_flat_layout_round_trips(overrides):
    _, method, variables = made(**overrides)
    variables = jax.tree.map(np.asarray, variables)
    layout = method.convert_layouts()["mmgl"]
    entries = layouts.export_state(layout, variables)
    assert any(name.startswith("base_resnet.base.layer1.0.") for name in entries)
    again, report = layouts.import_state(layout, entries, variables)
    assert not report.dropped
    for one, other in zip(*map(jax.tree.leaves, (variables, again)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_heads_and_dead_parts_of_a_file_are_told_apart():
    """A file of the authors' code may hold whole ResNets; what a stream does not use is dropped with its reason."""
    _, method, variables = made()
    layout = method.convert_layouts()["mmgl"]
    entries = layouts.export_state(layout, jax.tree.map(np.asarray, variables))
    dead = {"base_resnet.base.conv1.weight": entries["visible_module.visible.conv1.weight"]}
    _, report = layouts.import_state(layout, {**entries, **dead}, variables)
    assert list(report.dropped) == list(dead)


def trunk_maps(method, variables, images):
    trunk = {name: tree["backbone"] for name, tree in variables.items()}
    return jax.jit(lambda v, x: method.backbone.apply(v, x, False))(trunk, images)


def fine_tuned(name, **overrides):
    with contextlib.redirect_stdout(io.StringIO()) as told:
        _, method = tiny.method(name, **{"model__backbone": "resnet_nano2", **overrides})
        return method, method.start(method.init(jax.random.key(5))), told.getvalue()


@pytest.mark.parametrize("stem", [1, 0])
@pytest.mark.parametrize("name", ["agw", "ddag", "hetero_center"])
def test_the_supervised_trunk_computes_what_the_pretrained_one_does(name, stem, tmp_path):
    """Also where one stem served both modalities, and where the supervised networks share nothing."""
    config, source, variables = made(model__shared_from=stem)
    place = saved(tmp_path / "run", model__shared_from=stem)
    target, filled, told = fine_tuned(name, init__from_mmgl=place)
    images = dict(zip(MODALITIES, tiny.batch(config)["images"].values(), strict=True))
    # Non-local blocks start as the identity.
    one, other = trunk_maps(source, variables, images), trunk_maps(target, filled, images)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * np.abs(one).max())
    assert "arrays taken" in told


def test_every_array_of_the_trunk_is_handed_over(tmp_path, capsys):
    _, _, variables = made()
    trunk = {name: tree["backbone"] for name, tree in variables.items()}
    filled = visible_infrared.hand_over(saved(tmp_path / "run"), jax.tree.map(jnp.zeros_like, trunk))
    for one, other in zip(*map(jax.tree.leaves, (filled, trunk)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert f"{len(jax.tree.leaves(trunk))} arrays taken, 0 of new blocks" in capsys.readouterr().out


def test_only_shapes_read_no_file():
    _, method = tiny.method("agw", init__from_mmgl="nowhere")
    assert jax.eval_shape(method.init, KEY)["params"]["backbone"]


@pytest.mark.slow
def test_what_cannot_be_handed_over_is_named(tmp_path):
    place = saved(tmp_path / "run")
    config, method = tiny.method("agw")
    other = tmp_path / "agw"
    checkpoints.keep_copy(other, method.init(KEY), config, method.facts)
    for changes, message in (
        ({"init__from_mmgl": str(tmp_path / "absent")}, "absent"),
        ({"init__from_mmgl": str(other)}, "a run of method 'agw', not of MMGL"),
        ({"init__from_mmgl": place, "init__backbone": "resnet50.pth"}, "are both set"),
        ({"init__from_mmgl": place, "model__backbone": "resnet_micro"}, "does not fill layer2_0|is of another shape"),
        (
            {"init__from_mmgl": saved(tmp_path / "deep", model__shared_from=2)},
            "does not fill layer1_0 of the shared stream",
        ),
    ):
        with pytest.raises(UserError, match=message):
            fine_tuned("agw", **{"model__non_local": (), **changes})


def test_a_supervised_file_is_not_taken_for_a_pretrained_one(tmp_path):
    """The authors' loader takes nothing of such a file, and says nothing."""
    _, method = tiny.method("agw", model__non_local=())
    variables = jax.tree.map(np.asarray, jax.jit(method.init)(KEY))
    entries = layouts.export_state(method.convert_layouts()["agw"], variables)
    write_safetensors(str(tmp_path / "agw.safetensors"), entries)
    with pytest.raises(UserError, match="does not fit the layout 'mmgl'"):
        fine_tuned("agw", init__from_mmgl=str(tmp_path / "agw.safetensors"))
