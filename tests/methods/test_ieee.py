"""IEEE: what its switches change, its losses, and its first stage of training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.losses import centers, margins, triplet
from mmreid_jax.methods import base
from mmreid_jax.methods.ieee import LAYERS
from mmreid_jax.testing import tiny
from mmreid_jax.training import state as states
from mmreid_jax.training import step as steps

EVERY = frozenset(LAYERS)


def two_modalities(**overrides):
    config = tiny.config("ieee", **overrides)
    return config, base.build(config, base.DataFacts(8, 3, 1, ("rgb", "tir")))


def variables_of(method):
    """Variables of noise; every gate is open."""
    rng = np.random.default_rng(0)

    def fill(path, like):
        noise = 0.2 * rng.normal(size=like.shape).astype(np.float32)
        leaf = path[-1].key
        return np.zeros(like.shape, np.int32) if leaf == "count" else noise + (leaf in ("scale", "var", "gamma"))

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(method.init, jax.random.key(0)))


def forward(method, variables, batch, train=frozenset()):
    return jax.jit(lambda v, b: method.forward(v, b, train))(variables, batch)


def widened(x):
    return np.asarray(x, np.float64 if x.dtype == np.float32 else x.dtype)


@pytest.mark.slow(short=True)
def test_stacked_streams_compute_what_the_loop_computes(x64):
    results = []
    for streams in ("loop", "vmap"):
        config, method = tiny.method("ieee", model__streams=streams)
        variables = jax.tree.map(widened, variables_of(method))
        batch = tiny.batch(config, dtype=np.float64)
        results.append(forward(method, variables, batch, EVERY))
    for one, other in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10 * max(1.0, float(np.abs(one).max())))


@pytest.mark.slow_cases("change0", "change2", "change3")
@pytest.mark.parametrize("change", [{}, {"model__rem": "off"}, {"model__rem": "paper"}, {"model__global_from": "cim"}])
def test_parts_see_the_other_modalities_and_the_global_feature_where_a_module_says_so(change):
    """The thermal image changes the features of the colour image through the interaction alone."""
    config, method = tiny.method("ieee", **change)
    variables = variables_of(method)
    batch = tiny.batch(config)
    before, _ = forward(method, variables, batch)
    other = {**batch, "images": {**batch["images"], "tir": batch["images"]["tir"] * 0.5}}
    after, _ = forward(method, variables, other)
    np.testing.assert_array_equal(before[0]["backbone"], after[0]["backbone"])
    assert not np.allclose(before[0]["embedding"], after[0]["embedding"])
    moved = not np.allclose(before[0]["global_reduced"], after[0]["global_reduced"])
    assert moved == (config.model.global_from == "cim")
    same = np.allclose(before[0]["related"], before[0]["parts_reduced"])
    assert same == (config.model.rem == "off")


def test_without_interaction_the_modalities_are_apart():
    change = {"model__cim": False, "model__rem": "off"}
    config, method = tiny.method("ieee", **change)
    batch = tiny.batch(config)
    variables = variables_of(method)
    assert set(variables["params"]) == {"backbone", "reduce", "embed", "classifier"}
    features = jax.jit(method.embed)
    before = features(variables, batch)
    after = features(variables, {**batch, "images": {**batch["images"], "tir": batch["images"]["tir"] * 0.5}})
    np.testing.assert_array_equal(before["rgb"], after["rgb"])
    assert not np.allclose(before["tir"], after["tir"])


def test_the_code_s_relation_is_a_gate_on_the_global_feature():
    config, method = tiny.method("ieee")
    variables = variables_of(method)
    out = forward(method, variables, tiny.batch(config))[0][0]
    layer = variables["params"]["relation"]["rgb"]
    added = np.asarray(out["global_reduced"]) @ layer["part"]["kernel"] + layer["part"]["bias"]
    wanted = np.asarray(out["parts_reduced"]) + 2 * layer["gamma"] * added[:, None]
    np.testing.assert_allclose(out["related"], wanted, rtol=1e-5, atol=1e-5)


def test_the_feature_is_the_concatenation_of_the_modalities_in_the_authors_order():
    config, method = tiny.method("ieee")
    found = jax.jit(method.embed)(variables_of(method), tiny.batch(config))
    np.testing.assert_array_equal(
        found["whole"], np.concatenate([found[name] for name in ("tir", "rgb", "nir")], axis=1)
    )


@pytest.mark.slow(short=True)
def test_one_layer_reduces_the_global_feature_first_and_then_the_parts():
    config, method = tiny.method("ieee")
    variables, batch = variables_of(method), tiny.batch(config)
    out, stats = forward(method, variables, batch, EVERY)
    own = stats["reduce"]["nir"]["norm"]
    kernel = variables["params"]["reduce"]["nir"]["conv"]["kernel"][0, 0]
    whole = np.asarray(out[1]["backbone"]).mean((1, 2)) @ kernel
    parts = (np.asarray(out[1]["parts"]) @ kernel).reshape(-1, kernel.shape[-1])
    old = variables["batch_stats"]["reduce"]["nir"]["norm"]
    mean = 0.9 * (0.9 * old["mean"] + 0.1 * whole.mean(0)) + 0.1 * parts.mean(0)
    var = 0.9 * (0.9 * old["var"] + 0.1 * whole.var(0, ddof=1)) + 0.1 * parts.var(0, ddof=1)
    np.testing.assert_allclose(own["mean"], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(own["var"], var, rtol=1e-4, atol=1e-5)
    assert own["count"] == 2
    assert stats["embed"]["nir"]["norm"]["count"].tolist() == [1] * config.model.parts


@pytest.mark.parametrize("name", ["softmax", "margin", "triplet", "hcloss"])
@pytest.mark.parametrize(("weight_x", "weight_m"), [(1.0, 0.5), (0.0, 1.0)])
def test_the_loss_is_the_weighted_sum_of_its_terms(name, weight_x, weight_m):
    config, method = tiny.method("ieee", loss__name=name, loss__weight_x=weight_x, loss__weight_m=weight_m)
    batch = tiny.batch(config)
    labels = batch["identity"]
    rng = np.random.default_rng(0)
    size = (len(labels), config.model.parts * config.model.embed_dim)
    outputs = [
        {
            "embedding": jnp.asarray(rng.normal(size=size), jnp.float32),
            "logits": jnp.asarray(rng.normal(size=(len(labels), config.model.parts, 8)), jnp.float32),
        }
        for _ in range(3)
    ]
    # The losses alone: the networks have their own tests.
    method.forward = lambda *_: (outputs, {})
    total, (terms, _, _) = method.loss({"params": {}}, batch, None, 0, {})
    logits = np.stack([out["logits"] for out in outputs])
    shifted = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    hit = np.take_along_axis(shifted, labels[None, :, None, None], -1)[..., 0]
    entropy = -(0.9 * hit + 0.1 * shifted.mean(-1)).mean(1).sum(1)
    for number, modality in enumerate(("rgb", "nir", "tir")):
        assert terms[f"ce_{modality}"] == pytest.approx(entropy[number], rel=1e-5)
        right = (logits[number].argmax(-1) == labels[:, None]).mean()
        assert terms[f"accuracy_{modality}"] == pytest.approx(right, rel=1e-6)
    features = [out["embedding"] for out in outputs]
    between = {
        "softmax": lambda: 0.0,
        "margin": lambda: margins.three_modal_margin_loss(features, labels, margin=1.0),
        "triplet": lambda: triplet.batch_hard_triplet(
            jnp.concatenate([features[i] for i in (2, 0, 1)], 1), labels, 0.3, normalize=True
        )[0],
        "hcloss": lambda: centers.hetero_center_loss(features, labels),
    }[name]()
    assert ("between" in terms) == (name != "softmax")
    assert total == pytest.approx(float(weight_x * entropy.sum() + weight_m * between), rel=1e-5)


@pytest.mark.slow
def test_closed_layers_neither_move_nor_see_statistics_until_they_open():
    config, method = tiny.method(
        "ieee", train__fixbase_epochs=1, train__open_layers=("embed", "classifier"), optim__lr=0.01
    )
    ends = np.array([1, 3])
    variables = variables_of(method)
    optimizer = method.optimizer(variables["params"], ends)
    state = states.create(variables, optimizer, method.start_memory(ends))
    step = jax.jit(steps.train_step(method.loss, optimizer, seed=0))
    kept = (LAYERS[:-2], ("embed", "classifier"))
    for number, (closed, opened) in enumerate([kept, ((), LAYERS)]):
        new, _ = step(state, tiny.batch(config, seed=number))
        for collection in ("params", "batch_stats"):
            before, after = getattr(state, collection), getattr(new, collection)
            for layer in before:
                same = jax.tree.all(jax.tree.map(np.array_equal, before[layer], after[layer]))
                assert same or layer not in closed, (number, collection, layer)
                assert not same or layer not in opened, (number, collection, layer)
        state = new


@pytest.mark.slow(short=True)
def test_two_modalities_are_a_network_of_two_streams():
    config, method = two_modalities()
    batch = tiny.batch(config)
    variables = variables_of(method)
    assert set(variables["params"]["backbone"]) == {"rgb", "tir"}
    total, (terms, _, _) = jax.jit(lambda v, b: method.loss(v, b, None, 0, {}))(variables, batch)
    assert np.isfinite(total)
    assert {"ce_rgb", "ce_tir", "between"} <= set(terms)
    assert not any("nir" in name for name in terms)
    features = jax.jit(method.embed)(variables, batch)
    # XLA fuses, and so rounds, each output by itself.
    joined = np.concatenate([features["tir"], features["rgb"]], axis=1)
    np.testing.assert_allclose(features["whole"], joined, rtol=2e-6)


def test_any_modality_can_query_any_other():
    _, method = tiny.method("ieee", eval__cross_modal=True)
    first, *others = method.comparisons()
    assert first.query == first.gallery == ("rgb", "nir", "tir")
    assert {(c.query, c.gallery) for c in others} == {((a,), (b,)) for a in first.query for b in first.query if a != b}
    assert all(c.feature == c.query[0] and c.gallery_feature == c.gallery[0] for c in others)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model__backbone": "vit_micro"}, "resnet50"),
        ({"model__rem": "on"}, "config.model.rem"),
        ({"model__global_from": "parts"}, "config.model.global_from"),
        ({"model__streams": "scan"}, "loop"),
        ({"loss__name": "arcface"}, "hcloss"),
        ({"train__fixbase_epochs": 1, "train__open_layers": ("classifier_R",)}, "classifier"),
        ({"train__fixbase_epochs": 1, "train__open_layers": ()}, "open_layers"),
        ({"train__micro_batches": 2}, "remat"),
        ({"model__num_classes": 2}, "num_classes"),
    ],
)
def test_options_that_do_not_exist_are_named(change, said):
    with pytest.raises(UserError, match=said):
        tiny.method("ieee", **change)


def test_one_modality_is_too_few():
    with pytest.raises(UserError, match="two or three"):
        base.build(tiny.config("ieee"), base.DataFacts(8, 3, 1, ("rgb",)))
