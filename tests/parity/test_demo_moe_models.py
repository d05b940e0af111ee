"""DeMo's network and training steps against numbers of the authors' code.

Every case file of the suite ``demo_moe`` that holds a network is run, in float32 and in float64. Weights enter through
the conversion code that a user's checkpoint takes.
"""

from __future__ import annotations

import re

import clip_trunk_runs
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import precisions
import pytest

from mmreid_jax.models.layers import TorchBatchNorm

EVALUATED = clip_trunk_runs.of_kind("eval", "demo_moe")
TRAINED = clip_trunk_runs.of_kind("train", "demo_moe")


def fused(run, variables, batch):
    """What the fusion makes, under the keys of the files."""
    method, seen = run.method, {}

    def watch(call, args, kwargs, context):
        made = call(*args, **kwargs)
        of_gate = isinstance(context.module, TorchBatchNorm) and context.module.parent.name == "mixture"
        if context.method_name == "__call__" and of_gate:
            seen["atm/query_input"] = made
        return made

    with nn.intercept_methods(watch):
        out, _ = method.forward(variables, batch)
    outputs = {**seen, "atm/gates": out["gates"]}
    outputs |= {f"pife/{m}_reduce": x for m, x in zip(method.facts.modalities, out["features"], strict=True)}
    outputs |= {f"hdm/x{i + 1}": out["queries"][:, i] for i in range(out["queries"].shape[1])}
    # [B, S, heads, d]: what the experts say before they are weighed.
    count, heads, kinds = out["gates"].shape
    answers = out["mixture"].reshape(count, kinds, heads, -1) / out["gates"].swapaxes(1, 2)[..., None]
    for key in run.golden.arrays:
        if match := re.fullmatch(r"(atm/expert_head(\d+)_(\d+))(?:@64)?", key):
            outputs[match[1]] = answers[:, int(match[3]), int(match[2])]
    return outputs


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(EVALUATED, clip_trunk_runs.is_slow)))
def test_evaluation(path, dtype, x64):
    run = clip_trunk_runs.Run(path, dtype, "demo_moe")
    variables, method = run.variables(), run.method

    @jax.jit
    def evaluate(variables, batch):
        outputs = {**run.trunk(variables, batch), **fused(run, variables, batch)}
        features = method.embed(variables, batch)
        unit = features["all"] / jnp.linalg.norm(features["all"], axis=1, keepdims=True)
        outputs["distance"] = jnp.square(unit[:, None] - unit[None]).sum(-1)
        outputs["feature"] = features["all"]
        return outputs | {"feature_ori": features["global"][:, :64], "feature_moe": features["mixture"][:, :64]}

    embed = jax.jit(lambda v, b: method.embed(v, b)["all"])
    outputs = evaluate(variables, run.batch("eval"))
    few, letters = run.batch("eval", 2), {key.split("/")[1].removesuffix("@64") for key in missing(run)}
    outputs |= {f"missing/{gone}": embed(variables, run.without(few, gone)) for gone in letters}
    outputs["single_image_feature"] = embed(variables, run.batch("eval", 1))
    run.compare(outputs)
    precisions.forget()


def missing(run):
    return [key for key in run.golden.arrays if key.startswith("missing/")]


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(TRAINED, lambda *_: True)))
def test_training(path, dtype, x64):
    run = clip_trunk_runs.Run(path, dtype, "demo_moe")
    method = run.method
    names = list(method.widths)

    def observe(variables, batch):
        out, _ = method.forward(variables, batch, True)
        described = method.described(out)
        features = {name: described[name] for name in names}
        logits, _ = method.classified(variables, features)
        return {"features": features, "logits": logits, "gates": out["gates"]}

    reports, outputs, variables = run.train(observe)
    theirs = {"mixture": ("moe_score", "moe_feat"), "global": ("ori_score", "ori")}
    options = method.config.loss
    for number, report in enumerate(reports):
        found = {"gates": report["gates"], "loss": report["loss"]}
        for position, name in enumerate(names):
            score, feature = theirs.get(name, (f"{name}_score", f"{name}_feat"))
            found |= {score: report["logits"][name], feature: report["features"][name]}
            entropy, compared = report[f"ce_{name}"], report[f"triplet_{name}"]
            found |= {f"pair{position}_id": entropy, f"pair{position}_triplet": compared}
            found[f"pair{position}"] = options.ce_weight * entropy + options.triplet_weight * compared
        outputs.update({f"step{number}/{name}": np.asarray(value) for name, value in found.items()})
    outputs["feature_after"] = jax.jit(method.embed)(variables, run.batch("step0"))["all"]
    run.compare(outputs)
    precisions.forget()
