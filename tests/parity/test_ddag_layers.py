"""DDAG's part attention, graph attention and dynamic weight against numbers of the authors' code."""

from __future__ import annotations

import described
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.convert import ddag as ddag_layout
from mmreid_jax.convert import layout as layouts
from mmreid_jax.losses import identity
from mmreid_jax.methods import ddag
from mmreid_jax.models.graph import AttentionLayer, GraphAttention
from mmreid_jax.models.weighted_parts import WeightedParts
from mmreid_jax.testing import goldens

GOLDENS = [goldens.load(path) for path in goldens.cases("ddag")]
LAYERS = [golden for golden in GOLDENS if "map_hw" in golden.json]
WEIGHTS = [golden for golden in GOLDENS if "wG" in golden.arrays]
PRECISION = pytest.mark.parametrize("dtype", ["float32", "float64"])
PER_FILE = pytest.mark.parametrize("golden", LAYERS, ids=lambda golden: golden.name)
# Stored numbers are rounded to float32, but for the small ones.
FLOAT64, STORED64 = 1e-6, 1e-10


def compare(golden, dtype, found, prefix):
    """Compares every stored number below a prefix; one that nothing computes is a failure."""
    keys = [key for key in golden.arrays if key.startswith(prefix) and not key.endswith("@64")]
    assert keys
    for key in keys:
        assert key in found, f"nothing computes {key}"
        actual = np.asarray(found[key], np.float64)
        if dtype == "float64" and f"{key}@64" in golden.arrays:
            expected = golden.arrays[f"{key}@64"]
            relative = STORED64 if expected.dtype == np.float64 else FLOAT64
            goldens.close(actual, expected, relative, key)
            continue
        expected = golden.arrays[key].astype(np.float64)
        assert actual.shape == expected.shape, key
        error = actual - expected
        # A layer's adjacency has no tolerance of its own: it is exact up to rounding.
        allowed = golden.json["tolerances"].get(key, {"atol": 1e-6, "rel_l2_tol": 0.0})
        far = np.abs(error).max() > allowed["atol"]
        assert not far or np.linalg.norm(error) <= allowed["rel_l2_tol"] * np.linalg.norm(expected), key


def load(module, entries, layout, dtype, *inputs):
    """The variables of a module with the entries of a file, and the import's report."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))
    cast = lambda t: jnp.dtype(dtype) if jnp.issubdtype(t, jnp.floating) else t  # noqa: E731
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, cast(leaf.dtype)), shapes)
    return layouts.import_state(layout, entries, like)


def start(golden, key, value):
    """As many values from the start as the file holds under a key."""
    return value.reshape(-1)[: golden.arrays[key].size if key in golden.arrays else None]


def case_of(golden, name, dtype):
    """An input of the case."""
    case, recipe = golden.json, goldens.recipe()
    value = recipe.array(case["seed"], name, described.shape(case["inputs"], name))
    value = np.moveaxis(np.abs(value), 1, -1) if name == "map" else value
    return jnp.asarray(value, dtype)


@PRECISION
@PER_FILE
def test_weighted_parts(golden, dtype, x64):
    case = golden.json
    maps, features, cotangent = (case_of(golden, name, dtype) for name in ("map", "feat", "iwpa_cot"))
    entries = dict(goldens.recipe().state_dict(case["seed"], case["state_dict"]["iwpa"]))
    model, layout = WeightedParts(case["part"]), ddag_layout.weighted_parts()
    variables, report = load(model, entries, layout, dtype, maps, features, False)
    assert all(name.startswith("W.") for name in report.dropped)
    stats = variables["batch_stats"]

    def objective(params, maps, features):
        out, new = model.apply({"params": params, "batch_stats": stats}, maps, features, True, mutable=["batch_stats"])
        return (out * cotangent).sum(), (out, new["batch_stats"])

    by = jax.jit(jax.grad(objective, (0, 1, 2), has_aux=True))
    (of_params, of_maps, of_features), (trained, new) = by(variables["params"], maps, features)
    tree = jax.tree.map(np.asarray, {"params": of_params, "batch_stats": new})
    whole = layouts.export_state(layout, tree)
    assert set(whole) == set(entries), "a strict loader wants every key"
    found = {
        "iwpa/eval": model.apply(variables, maps, features, False),
        "iwpa/train": trained,
        "iwpa/grad_map_slice": np.moveaxis(np.asarray(of_maps), -1, 1)[
            0, : len(golden.arrays.get("iwpa/grad_map_slice", ()))
        ],
        "iwpa/grad_feat": of_features,
        "iwpa/grad_gate": whole["gate"],
        "iwpa/grad_fc1": start(golden, "iwpa/grad_fc1", whole["fc1.0.weight"]),
        "iwpa/grad_fc3": start(golden, "iwpa/grad_fc3", whole["fc3.weight"]),
        "iwpa/grad_fc1_bias": whole["fc1.0.bias"],
        "iwpa/running_mean": whole["bottleneck.running_mean"],
        "iwpa/running_var": whole["bottleneck.running_var"],
    }
    compare(golden, dtype, found, "iwpa/")


@PRECISION
@PER_FILE
def test_graph_attention(golden, dtype, x64):
    case = golden.json
    labels, nodes = jnp.asarray(case["labels"]), case_of(golden, "nodes", dtype)
    entries = goldens.recipe().state_dict(case["seed"], case["state_dict"]["gat"])
    factor = np.float32(described.number(case["weights"]["gat"], r"times ([\d.]+)", 1))
    entries = {name: value * factor for name, value in entries.items()}
    model = GraphAttention(case["n_class"], case["nheads"], case["low_dim"])
    neighbours = labels[:, None] == labels[None, :]
    layout = ddag_layout.graph()
    variables, report = load(model, entries, layout, dtype, nodes, neighbours)
    assert set(report.used) == set(entries)

    def objective(params, nodes):
        out = model.apply({"params": params}, nodes, neighbours)
        return identity.cross_entropy(out["logits"], labels), out

    by = jax.jit(jax.value_and_grad(objective, (0, 1), has_aux=True))
    (loss, out), (of_params, of_nodes) = by(variables["params"], nodes)
    whole = layouts.export_state(layout, {"params": jax.tree.map(np.asarray, of_params)})
    alone = AttentionLayer(case["low_dim"], (case["nheads"],))
    everyone = jnp.ones_like(neighbours)
    uniform = alone.apply({"params": variables["params"]["heads"]}, nodes, everyone)
    found = {
        **{f"gat/head{i}": head for i, head in enumerate(out["heads"])},
        "gat/out_att": out["out"],
        "gat/log_probs": jax.nn.log_softmax(out["logits"]),
        "gat/loss": loss,
        "gat/grad_nodes": of_nodes,
        **{f"gat/grad_{name}": start(golden, f"gat/grad_{name}", value) for name, value in whole.items()},
        "gat/head0_uniform_adj": jax.nn.elu(uniform[0]),
    }
    compare(golden, dtype, found, "gat/")


def adjacency(labels):
    """The paper's adjacency matrix and its normalised rows; ours is the mask of who sees whom."""
    same = np.equal.outer(labels, labels).astype(np.float64)
    whole = same + np.eye(len(labels))
    return {"adj": whole, "adj_norm": whole / np.linalg.norm(whole, axis=1, keepdims=True)}, same > 0


@PER_FILE
def test_adjacency_is_the_mask_of_identities(golden):
    found, mask = adjacency(golden.json["labels"])
    compare(golden, "float32", found, "adj")
    np.testing.assert_array_equal(golden.arrays["adj_norm"] > 0, mask)


@pytest.mark.parametrize("golden", WEIGHTS, ids=lambda golden: golden.name)
def test_dynamic_weight(golden, x64):
    """The weights of all epochs, by the functions that the training step calls."""
    losses, expected = golden.arrays["loss"], golden.arrays["wG"]
    steps = losses.shape[1]
    memory = jax.tree.map(jnp.asarray, ddag.start_weighting(np.arange(1, len(losses) + 1) * steps))
    weigh, note = jax.jit(ddag.weigh), jax.jit(ddag.note)
    found = []
    for step, loss in enumerate(losses.reshape(-1)):
        memory = weigh(memory, step)
        found.append(float(memory["weight"]))
        memory = note(memory, loss)
    found.append(float(weigh(memory, losses.size)["weight"]))
    assert golden.json["tolerances"].keys() == {"all"}
    wanted = np.append(np.repeat(expected[:-1], steps), expected[-1])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=golden.json["tolerances"]["all"])


def test_every_case_is_of_a_known_kind():
    for golden in GOLDENS:
        assert {"map_hw", "wG"} & set(golden.json) or "wG" in golden.arrays, golden.name
