"""Losses of a feature in DeMo and MDReID, and their gradients, against numbers of the authors' code."""

from __future__ import annotations

import clip_trunk_runs
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.systems import clip_trunk
from mmreid_jax.losses import identity, triplet
from mmreid_jax.testing import goldens

GOLDENS = [goldens.load(path) for path in clip_trunk_runs.of_kind("losses", "demo_moe", "mdreid")]
CASES = [
    pytest.param(golden, name, id=f"{golden.json['suite']}-{golden.name}-{name}")
    for golden in GOLDENS
    for name in golden.json["cases"]
]


def terms(score, feature, labels):
    options = clip_trunk.clip_trunk().loss
    entropy = identity.cross_entropy(score, labels, options.label_smoothing)
    compared, (positive, negative) = triplet.batch_hard_triplet(feature, labels)
    total = options.ce_weight * entropy + options.triplet_weight * compared
    return total, {"id": entropy, "triplet": compared, "total": total, "ap": positive, "an": negative}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("golden", "name"), CASES)
def test_case(golden, name, dtype, x64):
    case, seed, array = golden.json["cases"][name], golden.json["seed"], goldens.recipe().array
    count = len(case["labels"])
    score = array(seed, f"{name}/score", (count, case["classes"])) * np.float32(case["score_scale"])
    feature = array(seed, f"{name}/feat", (count, case["dim"])) * np.float32(case["feat_scale"])
    if name == "duplicates":
        feature[1] = feature[0]
    labels = jnp.asarray(case["labels"], jnp.int32)
    differentiate = jax.jit(jax.value_and_grad(lambda s, f: terms(s, f, labels), argnums=(0, 1), has_aux=True))
    (_, outputs), (of_score, of_feature) = differentiate(jnp.asarray(score, dtype), jnp.asarray(feature, dtype))
    outputs |= {"total/grad_feat": of_feature[:, :64], "total/grad_score": of_score[:, :32]}
    outputs["total/gradnorm_feat"] = jnp.linalg.norm(of_feature, axis=1)
    outputs = {f"{name}/{key}": value for key, value in outputs.items()}
    wanted = {
        key for key in golden.arrays if key.startswith(f"{name}/") and key.endswith("@64") == (dtype == "float64")
    }
    assert wanted
    for key in wanted:
        if dtype == "float32" and name == "duplicates" and key.endswith("/ap"):
            # Between equal rows float32 leaves a rounding error there and the floor of the root here.
            continue
        found = outputs[key.removesuffix("@64")]
        clip_trunk_runs.check(key, found, golden.arrays[key], golden.json["tolerances"], dtype)
