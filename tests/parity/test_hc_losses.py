"""Hetero-Center's losses, strips and heads, and its schedule, against numbers of the authors' code."""

from __future__ import annotations

import re

import described
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import hc_sysu
from mmreid_jax.convert import hetero_center as hc_layout
from mmreid_jax.convert import layout as layouts
from mmreid_jax.errors import UserError
from mmreid_jax.losses import centers, identity, margins
from mmreid_jax.losses.vectors import l2_normalise
from mmreid_jax.models import strips
from mmreid_jax.testing import goldens
from mmreid_jax.training import optimizers

GOLDENS = [goldens.load(path) for path in goldens.cases("hc")]
LOSSES = [golden for golden in GOLDENS if "hetero" in golden.json]
HETERO = [
    pytest.param(golden, case, id=f"{golden.name}-{case['name']}")
    for golden in LOSSES
    for case in golden.json["hetero"]["cases"]
]
POOLS = [
    pytest.param(golden, case, id=f"{golden.name}-{case['hw'][0]}x{case['hw'][1]}")
    for golden in LOSSES
    for case in golden.json["pool"]["cases"]
]
PER_FILE = pytest.mark.parametrize("golden", LOSSES, ids=lambda golden: golden.name)
PRECISION = pytest.mark.parametrize("dtype", ["float32", "float64"])


def close(golden, dtype, actual, key):
    """Compares with a stored array: absolute tolerances of the file, of the larger of its values and one."""
    expected, tolerance = golden.arrays[key], golden.json["tolerance"]
    actual = np.asarray(actual, np.float64)
    assert actual.shape == expected.shape, key
    allowed = tolerance["float64"] if dtype == "float64" else tolerance["float32_abs"]
    error = np.abs(actual - expected).max()
    assert error <= allowed * max(1.0, np.abs(expected).max()), f"{key}: {error:.3g}"


@PRECISION
@pytest.mark.parametrize(("golden", "case"), HETERO)
def test_hetero_center(golden, case, dtype, x64):
    array, name = goldens.recipe().array, case["name"]
    size = case["n"], case["d"]
    first = jnp.asarray(array(golden.json["seed"], f"{name}_f1", size), dtype)
    second = jnp.asarray(array(golden.json["seed"], f"{name}_f2", size), dtype) + case["f2_offset"]
    labels = jnp.asarray(case["labels"])
    chunks = len(set(case["labels"]))

    def loss(one, other, grouping):
        features = jnp.stack([one, other])
        groups = margins.cut(features, labels, grouping, chunks)
        features = l2_normalise(features) if case["l2_normalise_first"] else features
        return centers.hetero_center(features, groups, case["dist"], case["margin"])

    if "raises" in case:
        with pytest.raises(UserError, match="chunks"):
            loss(first, second, "positional")
        return
    sorted_blocks = case["labels"] == sorted(case["labels"], key=case["labels"].index)
    even = len({case["labels"].count(label) for label in case["labels"]}) == 1
    # By label is the same wherever the chunks are the identities, as in all that a sampler makes.
    for grouping in ("positional", *(("by_label",) if sorted_blocks and even else ())):
        value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)), static_argnums=2)(first, second, grouping)
        close(golden, dtype, value, f"hetero/{name}/loss")
        for gradient, side in zip(gradients, ("f1", "f2"), strict=True):
            key = f"hetero/{name}/grad_{side}"
            if key in golden.arrays:
                close(golden, dtype, gradient, key)
            else:
                # The authors' loss is then a plain number.
                np.testing.assert_array_equal(gradient, 0.0)


@PRECISION
@PER_FILE
def test_parts_together(golden, dtype, x64):
    case, array = golden.json["total"], goldens.recipe().array
    sizes = {letter: case[letter] for letter in "nCE"}
    logits, features = (
        jnp.asarray(array(golden.json["seed"], key, described.shape(case["inputs"], key, **sizes)), dtype)
        for key in ("total_logits", "total_feats")
    )
    labels = jnp.asarray(case["labels"])

    def parts(logits, features):
        halves = features.reshape(len(features), 2, case["n"], -1)
        # The authors cut the batch into as many chunks as there are labels, whatever their order.
        groups = margins.cut(halves[0], labels, "positional", len(set(case["labels"])))
        between = jax.vmap(lambda f: centers.hetero_center(f, groups, case["dist"], case["margin"]))(halves)
        entropy = identity.cross_entropy(logits, jnp.tile(labels, 2))
        return (entropy + case["w_hc"] * between).sum(), (entropy, between)

    # By the features before normalisation.
    objective = jax.value_and_grad(lambda x, f: parts(x, l2_normalise(f)), (0, 1), has_aux=True)
    (total, (entropy, between)), (of_logits, of_features) = objective(logits, features)
    by_part = entropy + case["w_hc"] * between
    found = {"ce": entropy, "hc": between, "part": by_part, "optimised_sum": total, "logged_mean": by_part.mean()}
    found.update(grad_logits=of_logits, grad_feats=of_features)
    expected = {key.removeprefix("total/") for key in golden.arrays if key.startswith("total/")}
    assert expected == set(found)
    for key, value in found.items():
        close(golden, dtype, value, f"total/{key}")


@PRECISION
@pytest.mark.parametrize(("golden", "case"), POOLS)
def test_strip_pooling(golden, case, dtype, x64):
    height, width = case["hw"]
    batch, channels, count = case["out"]
    maps = goldens.recipe().array(golden.json["seed"], f"pool_{height}x{width}", (batch, channels, height, width))
    pooled = strips.strip_pool(jnp.asarray(np.moveaxis(maps, 1, -1), dtype), count)
    close(golden, dtype, jnp.moveaxis(pooled, 1, -1), f"pool/{height}x{width}")


@PRECISION
@PER_FILE
def test_one_head(golden, dtype, x64):
    case, recipe, seed = golden.json["head"], goldens.recipe(), golden.json["seed"]
    size = described.shape(case["inputs"], "head_x")
    x = jnp.asarray(recipe.array(seed, "head_x", size), dtype)
    model = strips.StripHeads(case["classes"], case["low_dim"])
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x[:, None], False))
    forms = [case["class_block_names_drop_0"], case["class_block_names_drop_0.5"]]
    for form in forms:
        (weight, bias), layout = form, hc_layout.heads(classifier_index=int(form[0].split(".")[1]))
        names = {
            "feature1.feat_block.0.weight": (case["low_dim"], size[1]),
            **{f"feature1.feat_block.{n}": (case["low_dim"],) for n in ("0.bias", "1.weight", "1.bias")},
            **{f"feature1.feat_block.1.running_{n}": (case["low_dim"],) for n in ("mean", "var")},
            f"classifier1.{form[0]}": (case["classes"], case["low_dim"]),
            f"classifier1.{form[1]}": (case["classes"],),
        }
        # The numbers of the file are those of the names without dropout.
        stored = {name: name.replace(weight, forms[0][0]).replace(bias, forms[0][1]) for name in names}
        entries = {name: recipe.parameter(seed, stored[name], shape) for name, shape in names.items()}
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype if leaf.dtype == jnp.int32 else dtype), shapes
        )
        loaded, _ = layouts.import_state(layout, entries, like)
        for train in (False, True):
            (y, logits), _ = model.apply(loaded, x[:, None], train, mutable=["batch_stats"])
            mode = "train" if train else "eval"
            close(golden, dtype, y[:, 0], f"head/{mode}_y")
            close(golden, dtype, logits[:, 0], f"head/{mode}_logits")
            close(golden, dtype, l2_normalise(y)[:, 0], f"head/{mode}_y_normalised")


@pytest.mark.parametrize(
    "golden", [golden for golden in GOLDENS if "n_epochs_run" in golden.json], ids=lambda golden: golden.name
)
def test_schedule(golden, x64):
    """By the rule of the file: its base rate, its milestones, the epochs that it ran."""
    options, facts = hc_sysu.get_config().optim, golden.json
    options.epochs = epochs = facts["n_epochs_run"]
    options.lr = facts["base_lr"]
    options.milestones = tuple(int(epoch) for epoch in re.findall(r"epoch < (\d+)", facts["rule"]))
    ends = np.arange(1, epochs + 1)
    for column, group in enumerate(facts["groups"]):
        factor = options.base_lr_factor if group == "backbones" else 1.0
        rates = [float(optimizers.rate(options, ends, factor)(step)) for step in range(epochs)]
        expected = golden.arrays["lr_per_epoch_per_group"][:, column]
        np.testing.assert_allclose(rates, expected, rtol=0, atol=golden.json["tolerance"], err_msg=group)
    returned = [float(optimizers.rate(options, ends)(step)) for step in range(epochs)]
    np.testing.assert_allclose(returned, golden.arrays["returned_lr"], rtol=0, atol=golden.json["tolerance"])


def test_every_case_is_of_a_known_kind():
    for golden in GOLDENS:
        assert {"hetero", "n_epochs_run", "state_dict"} & set(golden.json), golden.name
