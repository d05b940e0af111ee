"""Losses of MMGL's pre-training, its permutations and its rates, against numbers of plain loops (suite ``mmgl``)."""

from __future__ import annotations

import math
import re
import zlib

import described
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.systems import agw, ddag, mmgl
from mmreid_jax.losses import cycle_contrast, permutation
from mmreid_jax.losses.vectors import l2_normalise
from mmreid_jax.models.stripes import shuffle
from mmreid_jax.testing import goldens
from mmreid_jax.training import optimizers

GOLDENS = [goldens.load(path) for path in goldens.cases("mmgl")]
PRECISION = pytest.mark.parametrize("dtype", ["float32", "float64"])
STREAMS = {"rgb": "visible", "ir": "infrared", "both": "both"}


def has(*keys):
    """Files that hold these keys, or whose cases do."""
    return [golden for golden in GOLDENS if set(keys) <= golden.json.keys() or set(keys) <= first_case(golden).keys()]


def first_case(golden):
    cases = golden.json.get("cases")
    return cases[0] if isinstance(cases, list) else {}


def numbered(*keys, of="cases"):
    """Parameters ``golden, index, case`` of a test."""
    return pytest.mark.parametrize(
        ("golden", "index", "case"),
        [
            pytest.param(golden, index, case, id=f"{golden.name}-{index}")
            for golden in has(*keys)
            for index, case in enumerate(golden.json[of])
        ],
    )


def tolerances(text):
    """(float64, float32) of a text such as "float64 1e-10; float32 relative 1e-5"."""
    return tuple(
        float(re.search(rf"{dtype}\D*?(\d\S*)", text).group(1).rstrip(";")) for dtype in ("float64", "float32")
    )


def close(golden, dtype, actual, key):
    """Compares with a stored array: the file's tolerance, of the larger of its values and one."""
    expected, actual = golden.arrays[key], np.asarray(actual, np.float64)
    assert actual.shape == expected.shape, key
    wide, single = tolerances(golden.json["tolerance"])
    error = np.abs(actual - expected).max()
    allowed = (wide if dtype == "float64" else single) * max(1.0, np.abs(expected).max())
    assert error <= allowed, f"{key}: error {error:.3g}, allowed {allowed:.3g}"


def stored(golden, index, names):
    """Key -> name of what a file holds for one of its cases; everything must have a name."""
    found = {}
    for key in golden.arrays:
        name, _, number = key.rpartition("_")
        if number == str(index):
            assert name in names, f"nothing computes {key}"
            found[key] = name
    assert found
    return found


@pytest.mark.parametrize(
    ("golden", "stripes"),
    [
        pytest.param(golden, stripes, id=f"{golden.name}-{stripes}")
        for golden in has("stripe_counts")
        for stripes in golden.json["stripe_counts"]
    ],
)
def test_permutations(golden, stripes):
    ranks = golden.arrays[f"rank_{stripes}"]
    drawn = goldens.recipe().integers(golden.json["seed"], f"ranks_{stripes}", 0, math.factorial(stripes), ranks.shape)
    np.testing.assert_array_equal(drawn, ranks)
    assert permutation.count(stripes) == math.factorial(stripes)
    orders = jax.jit(permutation.unrank, static_argnums=1)(jnp.asarray(ranks), stripes)
    np.testing.assert_array_equal(orders, golden.arrays[f"order_{stripes}"])
    np.testing.assert_array_equal(jnp.argsort(orders, axis=1), golden.arrays[f"inverse_{stripes}"])
    np.testing.assert_array_equal(permutation.matrices(orders), golden.arrays[f"matrix_{stripes}"])


@pytest.mark.parametrize("golden", has("stripe_counts"), ids=lambda golden: golden.name)
def test_tables(golden):
    tables = {key: table for key, table in golden.arrays.items() if key.startswith("table_")}
    assert tables
    for key, table in tables.items():
        np.testing.assert_array_equal(permutation.orders(table.shape[1]), table, err_msg=key)
    figure = golden.arrays["figure_order"]
    found = permutation.unrank(jnp.asarray(golden.arrays["figure_rank"])[None], len(figure))
    np.testing.assert_array_equal(found[0], figure)


@numbered("shuffle_cases", of="shuffle_cases")
def test_shuffled_images(golden, index, case):
    recipe, seed, stripes = goldens.recipe(), golden.json["seed"], case["S"]
    image = recipe.image(seed, case["image_key"], (case["H"], case["W"], 3))
    rank = recipe.integers(seed, case["rank_key"], 0, math.factorial(stripes), (1,))
    order = permutation.unrank(jnp.asarray(rank), stripes)
    np.testing.assert_array_equal(order[0], case["order"])
    shuffled = np.asarray(jax.jit(shuffle)(jnp.asarray(image)[None], order))[0]
    assert shuffled.dtype == np.uint8
    assert zlib.crc32(np.ascontiguousarray(shuffled).tobytes()) == case["crc32"]
    pictures = {f"shuffled_{index}": shuffled, f"shuffled_{index}_column": shuffled[:, case["W"] // 2]}
    kept = pictures.keys() & golden.arrays.keys()
    assert kept
    for key in kept:
        np.testing.assert_array_equal(pictures[key], golden.arrays[key], err_msg=key)


@PRECISION
@numbered("iters", "scale")
def test_sinkhorn(golden, index, case, dtype, x64):
    array, shape = goldens.recipe().array, (case["B"], case["S"], case["S"])
    logits, weight = (
        jnp.asarray(factor * array(golden.json["seed"], f"{key}_{index}", shape, np.float64), dtype)
        for key, factor in (("logits", case["scale"]), ("weight", 1.0))
    )

    def weighed(z):
        matrix = permutation.sinkhorn(z, case["iters"], case["temperature"])
        return jnp.sum(matrix * weight), matrix

    (_, matrix), gradient = jax.jit(jax.value_and_grad(weighed, has_aux=True))(logits)
    assert matrix.dtype == gradient.dtype == dtype
    outputs = {"P": matrix, "grad": gradient}
    for key, name in stored(golden, index, outputs).items():
        close(golden, dtype, outputs[name], key)


@PRECISION
@numbered("correct_rows_added")
def test_permutation_loss(golden, index, case, dtype, x64):
    recipe, pairs, stripes = goldens.recipe(), case["B"], case["S"]
    shape = (2 * pairs, stripes * stripes)
    logits = case["scale"] * recipe.array(golden.json["seed"], f"logits_{index}", shape, np.float64)
    ranks = recipe.integers(golden.json["seed"], f"ranks_{index}", 0, math.factorial(stripes), (pairs,))
    orders = jnp.tile(permutation.unrank(jnp.asarray(ranks), stripes), (2, 1))
    truth = permutation.matrices(orders, jnp.dtype(dtype))
    logits = logits.reshape(-1, stripes, stripes)
    if case["correct_rows_added"]:
        logits[::2] += described.number(golden.json["inputs"], r"(\d+)\*P is added") * np.asarray(truth)[::2]
    logits = jnp.asarray(logits, dtype)
    recover = lambda z: permutation.sinkhorn(z, golden.json["sinkhorn_iterations"], golden.json["temperature"])  # noqa: E731

    outputs = {}
    for reduction in permutation.REDUCTIONS:
        loss = lambda z, r=reduction: permutation.permutation_loss(recover(z), truth, r)  # noqa: E731
        outputs[f"loss_{reduction}"], outputs[f"grad_{reduction}"] = jax.jit(jax.value_and_grad(loss))(logits)
    predicted = recover(logits)
    outputs["loss_mean_by_modality"] = jnp.stack(
        [
            permutation.permutation_loss(half, right, "mean")
            for half, right in zip(jnp.split(predicted, 2), jnp.split(truth, 2), strict=True)
        ]
    )
    found = jax.jit(permutation.accuracies)(predicted, orders)
    outputs["metrics"] = jnp.stack([found[name].mean() for name in ("exact", "stripe", "row")])
    for key, name in stored(golden, index, outputs).items():
        close(golden, dtype, outputs[name], key)


@PRECISION
@numbered("cl_temp", "candidate_scope")
def test_cycle_contrast(golden, index, case, dtype, x64):
    shape = (case["B"], case["S"], case["D"])
    visible, infrared = (
        jnp.asarray(goldens.recipe().array(golden.json["seed"], f"{stream}_{index}", shape, np.float64), dtype)
        for stream in ("visible", "infrared")
    )
    options = cycle_contrast.CycleContrastOptions(
        mode=case["mode"],
        candidate_scope=case["candidate_scope"],
        negative_scope=case["negative_scope"],
        query=STREAMS[case["query"]],
        exclude_self=case["exclude_self"],
        temperature=case["cl_temp"],
        retrieval_temperature=case["retrieval_temp"],
    )
    objective = jax.value_and_grad(lambda v, t: cycle_contrast.cycle_contrast(v, t, options), (0, 1), has_aux=True)
    (loss, details), (of_visible, of_infrared) = jax.jit(objective)(visible, infrared)
    found = cycle_contrast.find(l2_normalise(visible), l2_normalise(infrared), options)
    outputs = {
        "loss": loss,
        "loss_rgb_query": details["visible_query"],
        "loss_ir_query": details["infrared_query"],
        "grad_visible": of_visible,
        "grad_infrared": of_infrared,
        "attention_rgb_to_ir": whole(found.attention_across),
        "qhat_ir": found.across,
    }
    if found.attention_within is not None:
        outputs.update(attention_rgb_to_rgb=whole(found.attention_within), qhat_rgb=found.within)
    for key, name in stored(golden, index, outputs).items():
        close(golden, dtype, outputs[name], key)


def whole(attention):
    """Attention within groups [G, n, n] as a matrix of all patches [G n, G n]."""
    return jax.scipy.linalg.block_diag(*attention)


def columns():
    """Parameters ``golden, key`` of the learning rates per epoch."""
    return [
        pytest.param(golden, key, id=key)
        for golden in GOLDENS
        if golden.json.get("note", "").startswith("learning rate per epoch")
        for key in golden.arrays
    ]


# What pre-trains or is fine-tuned by a schedule per epoch.
SYSTEMS = {
    "pretrain_cosine": mmgl.mmgl,
    "finetune_cosine": ddag.ddag,
    "finetune_step_agw": agw.agw,
    "finetune_step_ddag_mmgl": ddag.ddag,
}


@pytest.mark.parametrize(("golden", "key"), columns())
def test_rates(golden, key, x64):
    """Of the groups at the full rate; the trunk's in fine-tuning is in the tests of the methods.

    A name that holds a system's is that system's, with the period of a cosine where it ends in a number; any other must
    be one of them, with a period of all epochs or one less.
    """
    expected = golden.arrays[key]
    epochs, number = len(expected), re.search(r"_(\d+)$", key)
    periods = [int(number[1])] if number else [epochs, epochs - 1]
    gaps = {}
    for system in described.named(key, SYSTEMS):
        for period in periods:
            section = SYSTEMS[system]().optim
            section.update(epochs=epochs, lr=golden.json.get("base_lr", section.lr))
            if "cosine" in system:
                section.update(schedule="cosine", period=period)
            rate = optimizers.rate(section, np.arange(1, epochs + 1))
            actual = np.array([float(rate(epoch)) for epoch in range(epochs)])
            gaps[system, period] = float(np.abs(actual - expected).max())
    assert min(gaps.values()) <= golden.json["tolerance"], gaps


def test_every_case_is_of_a_known_kind():
    kinds = (("stripe_counts",), ("iters",), ("correct_rows_added",), ("cl_temp",), ("state_dict",), ("note",))
    known = {golden.name for kind in kinds for golden in has(*kind)}
    assert {golden.name for golden in GOLDENS} == known
