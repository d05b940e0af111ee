"""HTT's losses and their gradients against numbers of the authors' code; every case of every file of losses."""

from __future__ import annotations

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.losses import adaptation, identity, margins, triplet
from mmreid_jax.testing import goldens

GOLDENS = {path: goldens.load(path) for path in goldens.cases("htt")}
GOLDENS = {path: golden for path, golden in GOLDENS.items() if "error_cases" in golden.json}
CASES = [pytest.param(path, name, id=name) for path, golden in GOLDENS.items() for name in golden.json["cases"]]
ERRORS = [pytest.param(path, key, id=key) for path, golden in GOLDENS.items() for key in golden.json["error_cases"]]

# Relative to the largest value. The README asks for 1e-9 in float64; float32 losses differ by about 1e-5.
FLOAT64, FLOAT32 = 1e-9, 1e-5


def mode_of(path, name):
    return GOLDENS[path].json["cases"][name]["mode"]


def sorted_groups(labels):
    """Arguments of the positional margin losses: the reference counts distinct labels and cuts the batch evenly."""
    return {"grouping": "positional", "num_identities": len(set(labels))}


def train_total(inputs, labels, *, mmm=0.5, cim=0.5, margin=None):
    """5.1 of the specification: CE + triplet + 0.5 3M + 0.5 CIM, or the same with other weights."""
    groups = sorted_groups(np.asarray(labels).tolist())
    return (
        identity.cross_entropy(inputs["score"], labels)
        + triplet.batch_hard_triplet(concatenated(inputs), labels, margin)[0]
        + mmm * margins.three_modal_margin_loss(modalities(inputs), **groups)
        + cim * margins.cross_identity_margin_loss(modalities(inputs), **groups)
    )


def modalities(inputs):
    return [inputs[key] for key in sorted(inputs) if key.startswith("feat")]


def concatenated(inputs):
    return jnp.concatenate(modalities(inputs), axis=-1)


def smooth_cross_entropy(score, labels, smoothing=0.1):
    """The reference makes its soft targets in float32, in float64 runs as well."""
    if score.dtype == jnp.float32:
        return identity.cross_entropy(score, labels, smoothing)
    classes = score.shape[-1]
    hard = np.eye(classes, dtype=np.float32)[np.asarray(labels)]
    targets = np.float32(1 - smoothing) * hard + np.float32(smoothing / classes)
    return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(score, axis=-1), axis=-1))


def smooth_list_total(inputs, labels):
    """The label-smoothing branch with list features: half the triplet of the whole, half the mean of the parts."""
    parts = [triplet.batch_hard_triplet(feature, labels)[0] for feature in modalities(inputs)]
    whole = triplet.batch_hard_triplet(concatenated(inputs), labels)[0]
    return smooth_cross_entropy(inputs["score"], labels) + 0.5 * whole + 0.5 * sum(parts) / len(parts)


def other_terms(labels, stored):
    """Terms of their own by the names of a file, in which a margin or factor stands."""

    def hard(inputs, **options):
        return triplet.batch_hard_triplet(concatenated(inputs), labels, **options)[0]

    numbered = {"triplet_margin": "margin", "triplet_soft_hard_factor": "hard_factor"}
    of_number = {
        name: functools.partial(hard, **{option: float(name.removeprefix(prefix))})
        for prefix, option in numbered.items()
        for name in stored
        if re.fullmatch(re.escape(prefix) + r"[\d.]+", name)
    }
    return {
        **of_number,
        "ce_label_smooth": lambda x: smooth_cross_entropy(x["score"], labels),
        "triplet_soft_normalised": functools.partial(hard, normalize=True),
        "total_label_smooth_list": lambda x: smooth_list_total(x, labels),
        # Weights 0.25 of the identity loss and 2 of the rest, with the margin triplet.
        "total_margin_weights": lambda x: (
            0.25 * identity.cross_entropy(x["score"], labels)
            + 2.0 * (train_total(x, labels, margin=0.3) - identity.cross_entropy(x["score"], labels))
        ),
    }


def train_terms(labels, groups):
    return {
        "total": lambda x: train_total(x, labels),
        "ce": lambda x: identity.cross_entropy(x["score"], labels),
        "triplet": lambda x: triplet.batch_hard_triplet(concatenated(x), labels)[0],
        **chunk_terms(groups),
    }


def chunk_terms(groups):
    return {
        "mmm": lambda x: margins.three_modal_margin_loss(modalities(x), margin=1.0, **groups),
        "cim": lambda x: margins.cross_identity_margin_loss(modalities(x), margin=0.5, **groups),
    }


def margin_terms(case, groups):
    terms = {}
    for prefix, loss in (("mmm", margins.three_modal_margin_loss), ("cim", margins.cross_identity_margin_loss)):
        for margin, distance in case[prefix]:
            options = {"margin": margin, "distance": distance, **groups}
            terms[f"{prefix}_{distance}_m{margin}"] = lambda x, loss=loss, options=options: loss(
                modalities(x), **options
            )
    return terms


def terms_of(case, stored):
    """Name -> function of the inputs, for every term that a case of this mode holds; `stored` are the names."""
    mode = case["mode"]
    if mode == "ttt":
        return {"total": lambda x: adaptation.mtt_loss(modalities(x), x["score"], form="code")[0]}
    labels = jnp.asarray(case["labels"])
    groups = sorted_groups(case["labels"])
    if mode == "train":
        return train_terms(labels, groups)
    if mode == "margins":
        return margin_terms(case, groups)
    if mode == "chunks":
        return chunk_terms(groups)
    if mode == "other":
        return other_terms(labels, stored)
    raise AssertionError(f"case of unknown mode {mode!r}")


def inputs_of(golden, name, dtype):
    case, array = golden.json["cases"][name], goldens.recipe().array
    seed, batch = golden.json["seed"], case["batch"]
    count = len(
        {key for key in golden.arrays if re.fullmatch(rf"{re.escape(name)}/\w[^/]*/grad_feat\d+", key)} and "123"
    )
    inputs = {f"feat{m}": array(seed, f"{name}/feat{m}", (batch, case["dim"])) for m in range(1, count + 1)}
    inputs["score"] = array(seed, f"{name}/score", (batch, case["num_classes"]))
    if case["mode"] == "ttt":
        inputs["score"][np.arange(batch), case["pseudo"]] = 10.0
    return {key: jnp.asarray(value, dtype) for key, value in inputs.items()}


@pytest.mark.parametrize(("suffix", "tolerance"), [("__f64", FLOAT64), ("", FLOAT32)], ids=["float64", "float32"])
@pytest.mark.parametrize(("path", "name"), CASES)
def test_values_and_gradients(path, name, suffix, tolerance, x64):
    golden = GOLDENS[path]
    inputs = inputs_of(golden, name, jnp.float64 if suffix else jnp.float32)
    stored = {key.split("/")[1].removesuffix("__f64") for key in golden.arrays if key.startswith(f"{name}/")}
    functions = terms_of(golden.json["cases"][name], stored)
    assert stored == set(functions)
    results = evaluated(functions, inputs)
    for term, (value, gradient) in results.items():
        key = f"{name}/{term}"
        goldens.close(value, golden.arrays[key + suffix], tolerance, key)
        for of, actual in gradient.items():
            expected = golden.arrays.get(f"{key}/grad_{of}{suffix}")
            if expected is None:
                assert not np.any(actual), f"{key} is not stored with a gradient with respect to {of}"
                continue
            norms = golden.arrays[f"{key}/gradnorm_{of}{suffix}"]
            goldens.close(np.asarray(actual)[:, : expected.shape[1]], expected, tolerance, f"{key}/grad_{of}")
            goldens.close(np.linalg.norm(actual, axis=1), norms, tolerance, f"{key}/gradnorm_{of}")


def evaluated(functions, inputs):
    """Value and gradient of every function of the inputs."""
    return unoptimised(lambda x: {term: jax.value_and_grad(function)(x) for term, function in functions.items()})(
        inputs
    )


def unoptimised(function):
    """`function`, compiled in half the usual time."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.parametrize(("suffix", "tolerance"), [("__f64", FLOAT64), ("", FLOAT32)], ids=["float64", "float32"])
@pytest.mark.parametrize(("path", "name"), [case for case in CASES if mode_of(*case.values) == "train"])
def test_hardest_distances(path, name, suffix, tolerance, x64):
    golden = GOLDENS[path]
    inputs = inputs_of(golden, name, jnp.float64 if suffix else jnp.float32)
    labels = jnp.asarray(golden.json["cases"][name]["labels"])
    _, (positive, negative) = jax.jit(triplet.batch_hard_triplet)(concatenated(inputs), labels)
    goldens.close(positive, golden.arrays[f"{name}/triplet/dist_ap{suffix}"], tolerance)
    goldens.close(negative, golden.arrays[f"{name}/triplet/dist_an{suffix}"], tolerance)


@pytest.mark.parametrize(("path", "key"), ERRORS)
def test_batches_that_the_reference_refuses(path, key):
    """Positional chunking raises where the reference does; the other forms are defined for every batch."""
    expected = GOLDENS[path].json["error_cases"][key]
    labels = json.loads(key)
    features = np.random.default_rng(0).standard_normal((3, len(labels), 16)).astype(np.float32)
    losses = {"mmm": margins.three_modal_margin_loss, "cim": margins.cross_identity_margin_loss}
    defined = [lambda x, y: triplet.batch_hard_triplet(x[0], y)[0], *losses.values()]
    for term, loss in losses.items():
        positional = functools.partial(loss, **sorted_groups(labels))
        if expected[term] == "no error":
            defined.append(positional)
        else:
            with pytest.raises(UserError, match=r"identit|chunk"):
                jax.eval_shape(positional, features)
    values = unoptimised(lambda x, y: [loss(x, y) for loss in defined])(features, jnp.asarray(labels))
    assert np.all(np.isfinite(values))
