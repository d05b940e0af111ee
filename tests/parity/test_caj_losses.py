"""Losses of CAJ against numbers of the authors' code; every case of the suite ``caj`` with such losses."""

from __future__ import annotations

import re

import agw_runs
import described
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.losses import distillation, weighted_triplet
from mmreid_jax.testing import goldens

CASES = [path for path in goldens.cases("caj") if "feature_dim" in goldens.load(path).json]
VARIANT = re.compile(r"adp/scale(?P<scale>[\d.]+)_a(?P<alpha>[\d.]+)_g(?P<gamma>[\d.]+)_s(?P<square>[01])")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path, dtype, x64):
    golden, recipe = goldens.load(path), goldens.recipe()
    case, outputs = golden.json, {}
    labels = jnp.asarray(case["labels"])
    features = recipe.array(case["seed"], "features", described.shape(case["inputs"], "features")).astype(dtype)
    keys = agw_runs.keys_of(golden.arrays, dtype)
    for kind in {name.rsplit("/", 1)[0] for name in keys.values()}:
        if kind == "kl":
            outputs["kl/loss"], outputs["kl/grad_pred"] = divergence(case, dtype)
            continue
        variant = VARIANT.fullmatch(kind)
        assert variant, f"nothing computes {kind}"
        x = jnp.asarray(features * features.dtype.type(variant["scale"]))
        options = {
            "alpha": float(variant["alpha"]),
            "gamma": float(variant["gamma"]),
            "square": variant["square"] == "1",
        }
        loss = lambda x, o=options: weighted_triplet.squared_difference_triplet(x, labels, **o)  # noqa: E731
        (value, (positive, negative)), gradient = jax.value_and_grad(loss, has_aux=True)(x)
        outputs.update({f"{kind}/loss": value, f"{kind}/grad": gradient})
        outputs[f"{kind}/correct"] = np.sum(np.asarray(negative) >= np.asarray(positive))
    for key, name in keys.items():
        agw_runs.check(key, outputs[name], golden.arrays[key], case["tolerances"].get(name), dtype)


def divergence(case, dtype):
    """The divergence of "2*pred" from "2*target" and its gradient by ``pred``."""
    size, words = described.shape(case["inputs"], "target"), case["keys"]
    predicted, target = (goldens.recipe().array(case["seed"], name, size) for name in ("pred", "target"))
    ours, theirs = (described.number(words, rf"([\d.]+)\*{name}", 1) for name in ("pred", "target"))
    teacher, warmth = jnp.asarray(theirs * target, dtype), described.number(words, r"temperature ([\d.]+)", 3)
    loss = lambda x: distillation.softened_divergence(ours * x, teacher, warmth)  # noqa: E731
    return jax.value_and_grad(loss)(jnp.asarray(predicted, dtype))
