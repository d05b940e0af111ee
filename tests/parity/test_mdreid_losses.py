"""MDReID's decoupling losses and their gradients against numbers of the authors' code."""

from __future__ import annotations

import clip_trunk_runs
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.losses import decoupling
from mmreid_jax.testing import goldens

GOLDENS = [
    golden for golden in map(goldens.load, goldens.cases("mdreid")) if "common" in str(golden.json.get("inputs"))
]
CASES = [pytest.param(golden, name, id=f"{golden.name}-{name}") for golden in GOLDENS for name in golden.json["cases"]]
HEAD = 24


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("golden", "name"), CASES)
def test_case(golden, name, dtype, x64):
    case, seed, array = golden.json["cases"][name], golden.json["seed"], goldens.recipe().array
    count, dim, scale = len(case["labels"]), case["dim"], np.float32(case["scale"])
    common = scale * array(seed, f"{name}/common", (count, dim))
    specific = array(seed, f"{name}/specific", (count, 3 * dim)) * scale
    shared = array(seed, f"{name}/shared", (count, 3 * dim)) * scale + np.tile(common, 3)
    cut = lambda x: jnp.asarray(x.reshape(count, 3, dim).transpose(1, 0, 2), dtype)  # noqa: E731
    labels = jnp.asarray(case["labels"], jnp.int32)
    losses = {"orth": decoupling.orthogonality, "disc": lambda x, y: decoupling.disentangling(x, y, labels)}
    outputs = {}
    for term, loss in losses.items():
        value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(cut(specific), cut(shared))
        outputs[term] = value
        for kind, gradient in zip(("specific", "shared"), gradients, strict=True):
            of_samples = np.asarray(gradient).transpose(1, 0, 2)
            outputs[f"{term}/grad_{kind}"] = of_samples[:, :, :HEAD]
            outputs[f"{term}/gradnorm_{kind}"] = np.linalg.norm(of_samples.reshape(count, -1), axis=1)
    wanted = {
        key for key in golden.arrays if key.startswith(f"{name}/") and key.endswith("@64") == (dtype == "float64")
    }
    assert wanted
    for key in wanted:
        found = outputs[key.removeprefix(f"{name}/").removesuffix("@64")]
        clip_trunk_runs.check(key, found, golden.arrays[key], golden.json["tolerances"], dtype)
