"""DEEN: its sizes, forms and losses, mirrored features, dropout, and the authors' files."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import deen_llcm, deen_regdb, deen_sysu
from mmreid_jax.convert import known
from mmreid_jax.convert import layout as layouts
from mmreid_jax.errors import UserError
from mmreid_jax.losses import expansion, identity, triplet
from mmreid_jax.methods import base
from mmreid_jax.methods.deen import of_one_length, side_by_side
from mmreid_jax.models.deen import COPIES
from mmreid_jax.testing import goldens, tiny
from mmreid_jax.training import optimizers


@functools.cache
def fresh(expanded=2):
    """Initial variables of a tiny method with blocks that do something."""
    _, method = tiny.method("deen", model__expanded=expanded)
    variables = jax.jit(method.init)(jax.random.key(0))
    return jax.tree.map(lambda x: x + 0.05 if x.dtype == jnp.float32 else x, variables)


@pytest.mark.parametrize(
    ("module", "identities", "trained"),
    [(deen_sysu, 395, 42_037_792), (deen_regdb, 206, 13_094_176), (deen_llcm, 713, 42_037_792 + 2048 * (713 - 395))],
)
def test_experiments_have_the_published_sizes(module, identities, trained):
    method = base.build(module.get_config(), base.DataFacts(identities, 4, 1, ("rgb", "nir")))
    shapes = base.shapes(method)["params"]
    assert sum(x.size for x in jax.tree.leaves(shapes)) == trained


def test_experiments_differ_in_data_and_form_alone():
    sysu, regdb, llcm = (module.get_config().to_dict() for module in (deen_sysu, deen_regdb, deen_llcm))
    for other in (regdb, llcm):
        assert {name for name in sysu if sysu[name] != other[name]} <= {"data", "model"}
        changed = {key for key in sysu["data"] if sysu["data"][key] != other["data"][key]}
        assert changed <= {"dataset", "grey_of", "erasing_area"}
    assert {key for key in sysu["model"] if sysu["model"][key] != regdb["model"][key]} == {"expanded"}
    assert sysu["model"] == llcm["model"]


@pytest.mark.slow(short=True)
@pytest.mark.parametrize("grouping", ["by_label", "positional"])
def test_the_loss_is_the_weighted_sum_of_its_terms(grouping, x64):
    weights = {"ce_weight": 0.5, "triplet_weight": 2.0, "cpm_weight": 0.7, "orthogonality_weight": 0.3}
    config, method = tiny.method("deen", **{f"loss__{k}": v for k, v in weights.items()}, loss__grouping=grouping)
    batch = tiny.batch(config)
    count, rng = len(batch["identity"]), np.random.default_rng(1)
    pooled, logits = (jnp.asarray(rng.normal(size=(2 * COPIES * count, width))) for width in (5, 8))
    # The losses alone: the network has its own tests.
    method.forward = lambda *_: ({"pool": pooled, "logits": logits}, {})
    total, (terms, _, _) = method.loss({}, batch, jax.random.key(0), 0, {})
    labels = np.tile(batch["identity"], 2 * COPIES)
    rows = pooled.reshape(COPIES, 2, count, 5)
    compared, (positive, negative) = triplet.batch_hard_triplet(pooled, labels, 0.3)
    expected = {
        "ce": identity.cross_entropy(logits, labels),
        "triplet": compared,
        "cpm_2": expansion.center_guided_pairs(*rows[0], *rows[1], batch["identity"]),
        "cpm_3": expansion.center_guided_pairs(*rows[0], *rows[2], batch["identity"]),
        "orthogonality": jnp.sum(rows[1] * rows[2]) / len(pooled),
    }
    for name, value in expected.items():
        assert terms[name] == pytest.approx(float(value)), name
    summed = sum(
        weights["cpm_weight" if name.startswith("cpm") else f"{name}_weight"] * value
        for name, value in expected.items()
    )
    assert total == pytest.approx(float(summed))
    assert terms["ranked"] == pytest.approx(np.mean(np.asarray(negative) >= np.asarray(positive)))
    right = (np.asarray(logits.argmax(-1)) == labels).reshape(COPIES, 2, count)
    for stream, modality in enumerate(method.facts.modalities):
        assert terms[f"accuracy_{modality}"] == pytest.approx(right[:, stream].mean())


def without_rest(name, feature, mirror):
    """A feature without the two numbers that make up for its length, roots of small differences."""
    return feature[:, :-2] if mirror and name.startswith("all") else feature


@pytest.mark.slow(short=True)
@pytest.mark.parametrize("mirror", [False, True])
def test_one_modality_alone_gives_what_both_together_give(mirror):
    config, method = tiny.method("deen", eval__mirror=mirror)
    variables, batch = fresh(), tiny.batch(config)
    embed = jax.jit(method.embed)
    both = embed(variables, batch)
    assert set(both) == {f"{name}_{modality}" for name in ("all", "fc", "pool") for modality in ("rgb", "nir")}
    for name in method.facts.modalities:
        alone = embed(variables, {**batch, "images": {name: batch["images"][name]}})
        for feature, value in alone.items():
            found, wanted = (without_rest(feature, x, mirror) for x in (value, both[feature]))
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
        longest = np.sqrt(2 * COPIES) * (1 + mirror)
        np.testing.assert_allclose(np.linalg.norm(alone[f"all_{name}"], axis=1), longest, rtol=1e-5)
    maps = jax.eval_shape(method.maps, variables, batch)
    assert {name: x.shape[0] for name, x in maps.items()} == {name: len(batch["identity"]) for name in ("rgb", "nir")}


@pytest.mark.slow(short=True)
def test_a_mirrored_image_has_the_same_feature():
    config, method = tiny.method("deen")
    batch = tiny.batch(config)
    mirrored = {**batch, "images": {name: images[:, :, ::-1] for name, images in batch["images"].items()}}
    embed = jax.jit(method.embed)
    found, other = embed(fresh(), batch), embed(fresh(), mirrored)
    for name, value in found.items():
        got, wanted = (without_rest(name, x, True) for x in (other[name], value))
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_the_cosine_of_all_features_is_the_score(x64):
    """Whatever the lengths of the six; and the weights are those of the products."""
    rng = np.random.default_rng(0)
    units = rng.normal(size=(2 * COPIES, 9, 4))
    units *= rng.uniform(0.5, 2, (2 * COPIES, 9, 1)) / np.linalg.norm(units, axis=-1, keepdims=True)
    weights, visible = (0.1, 0.9), np.arange(9) < 4
    largest = COPIES * sum(weights) * 4
    vectors = np.asarray(of_one_length(side_by_side(jnp.asarray(units), weights), largest, jnp.asarray(visible)))
    np.testing.assert_allclose(np.sum(vectors**2, axis=1), largest, rtol=1e-12)
    for i in np.flatnonzero(visible):
        for j in np.flatnonzero(~visible):
            products = [units[k, i] @ units[k, j] for k in range(2 * COPIES)]
            score = 0.1 * sum(products[:COPIES]) + 0.9 * sum(products[COPIES:])
            np.testing.assert_allclose(vectors[i] @ vectors[j], score, rtol=1e-10, atol=1e-12)


def test_dropout_takes_the_key_of_the_step():
    config, method = tiny.method("deen", model__dropout=0.5)
    batch, variables = tiny.batch(config), fresh()
    loss = jax.jit(lambda key: method.loss(variables, batch, key, 0, {})[0])
    one, same, other = (float(loss(jax.random.key(seed))) for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.slow(short=True)
def test_the_trunk_trains_at_a_tenth_and_the_neck_s_bias_not_at_all():
    _, method = tiny.method("deen")
    params = jax.eval_shape(method.init, jax.random.key(0))["params"]
    ones = jax.tree.map(lambda x: jnp.ones(x.shape), params)
    optimizer = method.optimizer(ones, np.array([10, 20]))
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, ones), optimizer.init(ones), ones)
    decayed = 0.1 / 10 * 5e-4 * 1.9
    for path, update in zip(jax.tree.leaves(optimizers.paths(params)), jax.tree.leaves(updates), strict=True):
        share = 0.0 if path == "bottleneck/bias" else 0.1 if path.startswith("backbone/") else 1.0
        np.testing.assert_allclose(update, -decayed * share, rtol=1e-5, err_msg=path)


@pytest.mark.slow(short=True)
@pytest.mark.parametrize("expanded", [1, 3])
def test_imagenet_weights_go_where_a_stream_has_the_part(expanded, tmp_path):
    from safetensors.numpy import save_file

    # A whole trunk is that of another method.
    _, whole = tiny.method("agw", model__backbone="resnet_micro", model__non_local=())
    variables = jax.tree.map(np.asarray, jax.jit(whole.init)(jax.random.key(3)))
    trunk = {c: {**tree["backbone"]["visible"], **tree["backbone"]["shared"]} for c, tree in variables.items()}
    file = tmp_path / "resnet.safetensors"
    save_file(layouts.export_state(known.named("resnet"), trunk), file)
    _, method = tiny.method("deen", init__backbone=str(file), model__expanded=expanded)
    before = method.init(jax.random.key(1))
    loaded = method.start(before)
    for collection, streams in loaded.items():
        for stream, parts in streams["backbone"].items():
            for part, tree in parts.items():
                new = part.startswith(("aggregation", "expansion"))
                wanted = before[collection]["backbone"][stream][part] if new else trunk[collection][part]
                for got, value in zip(*map(jax.tree.leaves, (tree, wanted)), strict=True):
                    np.testing.assert_array_equal(got, value)


def names_of_files():
    """Names and shapes of the networks in the golden files, with sides of at most two; one of each data set."""
    found = {}
    for path in goldens.cases("deen"):
        case = goldens.load(path).json
        if isinstance(listed := case.get("state_dict"), list):
            found[case["dataset"]] = [(name, [min(side, 2) for side in shape]) for name, shape in listed]
    return [pytest.param(names, id=dataset) for dataset, names in found.items()]


@pytest.mark.parametrize("names", names_of_files())
def test_the_authors_files_round_trip(names):
    """What the network never uses is dropped, and written again so that strict loaders get every key."""
    entries = dict(goldens.recipe().state_dict(1, names))
    layout = known.named("deen")
    variables, report = layouts.import_state(layout, entries)
    short = not any(name.startswith("MFA3.") for name in entries)
    assert ("aggregation3" in variables["params"]["backbone"]["shared"]) != short
    assert any(name.startswith("base_resnet.base.layer4.") for name in report.dropped) == short
    exported = layouts.export_state(layout, variables)
    assert set(exported) == set(entries)
    for name, value in entries.items():
        assert exported[name].dtype == value.dtype, name
        assert name in report.dropped or exported[name].tobytes() == value.tobytes(), name
    again, _ = layouts.import_state(layout, exported)
    for wanted, got in zip(*map(jax.tree.leaves, (variables, again)), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.slow(short=True)
@pytest.mark.parametrize("expanded", [1, 2, 3])
def test_every_form_round_trips_in_whole_shapes(expanded):
    """Of a stage that the network lacks the file has zeros, in the shapes of a whole ResNet."""
    _, method = tiny.method("deen", model__expanded=expanded)
    layout, variables = method.convert_layouts()["deen"], fresh(expanded)
    entries = layouts.export_state(layout, variables)
    back, _ = layouts.import_state(layout, entries, jax.tree.map(np.zeros_like, variables))
    for wanted, got in zip(*map(jax.tree.leaves, (variables, back)), strict=True):
        np.testing.assert_array_equal(got, wanted)
    whole = layouts.export_state(tiny.method("deen", model__expanded=3)[1].convert_layouts()["deen"], fresh(3))
    for name, value in entries.items():
        if name.startswith("base_resnet.") or ".layer" in name:
            assert value.shape == whole[name].shape, name
    assert {name for name in whole if "resnet" in name} == {name for name in entries if "resnet" in name}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model__expanded": 4}, "another one follows"),
        ({"data__image_size": (36, 36)}, "9x9 positions"),
        ({"loss__grouping": "by_name"}, "choose one of by_label, positional"),
        ({"eval__weights": (0.0, 0.0)}, "both 0"),
        ({"eval__feature": "after"}, "choose one of all, fc, pool"),
        ({"model__backbone": "resnet_giant"}, "resnet50"),
    ],
)
def test_what_it_cannot_run_it_refuses(change, said):
    with pytest.raises(UserError, match=said):
        tiny.method("deen", **change)
