"""IEEE's losses and their gradients against numbers of the authors' code; every block of every file of losses."""

from __future__ import annotations

import itertools
import re

import described
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.losses import centers, identity, margins, triplet
from mmreid_jax.testing import goldens

GOLDENS = {path: goldens.load(path) for path in goldens.cases("ieee")}
GOLDENS = {path: golden for path, golden in GOLDENS.items() if golden.json.get("case") == "losses"}
BLOCKS = [pytest.param(path, name, id=name) for path, golden in GOLDENS.items() for name in golden.json["blocks"]]

MODALITIES = "RNT"
# Heads whose gradients are stored; smoothing of the two cross-entropies.
STORED_HEADS = (0, 7, 17)
SMOOTHING = {"smooth": 0.1, "plain": 0.0}
# Of the README: relative for scalars, relative to the largest value for arrays (stored rounded to float32).
TOLERANCES = {"float64": (1e-9, 1e-6), "float32": (1e-5, 1e-4)}


def inputs_of(golden, name, dtype):
    """(raw features [M, B, D], logits [18, B, C], labels [B]) by the recipe of the block."""
    block, array, seed = golden.json["blocks"][name], goldens.recipe().array, golden.json["seed"]
    labels, dim = block["labels"], block["dim"]
    batch, names = len(labels), list(dict.fromkeys(labels))
    position = np.array([names.index(label) for label in labels])
    features = []
    for m, scale, offset in zip(MODALITIES, block["scale"], block["offset"], strict=True):
        feature = np.float32(scale) * array(seed, f"{name}/{m}", (batch, dim))
        feature = feature + array(seed, f"{name}/common", (batch, dim))
        shifts = array(seed, f"{name}/offset_{m}", (len(names), dim))
        features.append(feature + np.float32(offset) * shifts[position])
    words = block["inputs"]["logits"]
    size = described.shape(words, f"{name}/logits", B=batch, C=block["num_classes"])
    logits = np.float32(described.number(words, r"^([\d.]+)\*", 1)) * array(seed, f"{name}/logits", size)
    return jnp.asarray(np.stack(features), dtype), jnp.asarray(logits, dtype), jnp.asarray(labels)


def three_modal_terms(raw, unit, groups, margin):
    """Key -> value of the 3M loss with one margin."""
    prefix, count = f"3m/m{margin}", groups["num_identities"]
    cut = margins.positional_groups(raw.shape[1], count, count)
    of_unit = jax.grad(margins.three_modal_margin)(unit, cut, margin, "l2")
    loss, of_raw = jax.value_and_grad(margins.three_modal_margin_loss)(raw, margin=margin, **groups)
    found = {
        f"{prefix}/l2/loss": loss,
        f"{prefix}/l1_raw/loss": margins.three_modal_margin(raw, cut, margin, "l1"),
    }
    for m, name in enumerate(MODALITIES):
        found[f"{prefix}/l2/grad_normalised_{name}"] = of_unit[m]
        found[f"{prefix}/l2/grad_raw_{name}"] = of_raw[m]
    return found


def centre_distances(unit, count):
    """Squared distances of the centres of each chunk: [chunks, 3] for RN, NT, RT."""
    means, _ = margins.group_centers(unit, margins.positional_groups(unit.shape[1], count, count))
    return jnp.stack([jnp.sum(jnp.square(means[a] - means[b]), -1) for a, b in ((0, 1), (1, 2), (0, 2))], axis=1)


def terms_of(block, raw, logits, labels):
    """Key below the block's name -> value, for everything that a block may store."""
    count = len(set(block["labels"]))
    groups = {"grouping": "positional", "num_identities": count}
    unit = margins.unit_features(raw)
    found = {
        "3m/centre_sqdist": centre_distances(unit, count),
        "accuracy_each": 100 * identity.accuracy(logits, labels),
    }
    for margin in block["margins"]:
        found.update(three_modal_terms(raw, unit, groups, margin))
    for distance in ("l2", "l1", "cos"):
        loss, gradient = jax.value_and_grad(centers.hetero_center_loss)(raw, distance=distance, **groups)
        found[f"hetero/{distance}/loss"] = loss
        found.update({f"hetero/{distance}/grad_raw_{name}": gradient[m] for m, name in enumerate(MODALITIES)})
    for kind, smoothing in SMOOTHING.items():
        each = identity.cross_entropy(logits, labels, smoothing)
        gradient = jax.grad(lambda x, eps=smoothing: jnp.sum(identity.cross_entropy(x, labels, eps)))(logits)
        found.update({f"ce/{kind}/each": each, f"ce/{kind}/total": jnp.sum(each)})
        found[f"ce/{kind}/grad_logits"] = gradient[jnp.asarray(STORED_HEADS)]
    for key in block["scalars"]:
        margin = re.fullmatch(r"triplet/m([\d.]+)/loss_R", key)
        if margin:
            hard = jax.value_and_grad(lambda x, m=float(margin[1]): triplet.batch_hard_triplet(x, labels, m)[0])(raw[0])
            found.update({key: hard[0], f"triplet/m{margin[1]}/grad_R": hard[1]})
    found["total/margin_engine"] = found[f"3m/m{block['margins'][0]}/l2/loss"] + found["ce/smooth/total"]
    return found


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize(("path", "name"), BLOCKS)
def test_values_and_gradients(path, name, precision, x64):
    golden = GOLDENS[path]
    block = golden.json["blocks"][name]
    raw, logits, labels = inputs_of(golden, name, precision)
    compiled = jax.jit(lambda r, z, y: terms_of(block, r, z, y), compiler_options={"xla_backend_optimization_level": 0})
    found = {key: np.asarray(value) for key, value in compiled(raw, logits, labels).items()}
    arrays = {key.removeprefix(f"{name}/"): value for key, value in golden.arrays.items() if key.startswith(f"{name}/")}
    assert set(found) == {*arrays, *block["scalars"]}
    of_scalars, of_arrays = TOLERANCES[precision]
    for key, value in block["scalars"].items():
        goldens.close(found[key], value[precision], of_scalars, f"{name}/{key}")
    for key, value in arrays.items():
        goldens.close(found[key], value, of_arrays, f"{name}/{key}")


@pytest.mark.parametrize(("path", "name"), BLOCKS)
def test_grouping_by_label_equals_the_chunks_of_equal_contiguous_runs(path, name, x64):
    """The chunks are the identities wherever every identity is one run of the same length."""
    golden = GOLDENS[path]
    block = golden.json["blocks"][name]
    raw, _, labels = inputs_of(golden, name, "float64")
    runs = [len(list(run)) for _, run in itertools.groupby(block["labels"])]
    chunks_are_identities = len(set(runs)) == 1 and len(runs) == len(set(block["labels"]))
    for loss in (margins.three_modal_margin_loss, centers.hetero_center_loss):
        by_label = loss(raw, labels)
        positional = loss(raw, grouping="positional", num_identities=len(set(block["labels"])))
        assert bool(jnp.isclose(by_label, positional, rtol=1e-12)) == chunks_are_identities
