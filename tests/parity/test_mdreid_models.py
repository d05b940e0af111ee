"""MDReID's network and training steps against numbers of the authors' code.

Every case file of the suite ``mdreid`` that holds a network is run, in float32 and in float64. Weights enter through
the conversion code that a user's checkpoint takes.
"""

from __future__ import annotations

import clip_trunk_runs
import jax
import jax.numpy as jnp
import numpy as np
import precisions
import pytest

from mmreid_jax.methods import modality_sets

EVALUATED = clip_trunk_runs.of_kind("eval", "mdreid")
TRAINED = clip_trunk_runs.of_kind("train", "mdreid")
NAMES = tuple(clip_trunk_runs.MODALITIES.values())
# First channels of every chunk that the files hold.
HEAD = 4


def of_present(features, present):
    """The feature of an image in which these modalities are present."""
    chunks = [f"{kind}_{name}" for kind in ("specific", "shared") for name in present]
    return jnp.concatenate([features[chunk] for chunk in chunks], axis=1)


def unit(x):
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


def compared(features, case):
    """Distances and heads of all pairs of sets, as released."""
    outputs = {}
    for pair, said in case["any_to_any"].items():
        query, gallery = (tuple(NAMES[i] for i in said[key]) for key in ("query_ids", "gallery_ids"))
        sides = modality_sets.chunks(query, gallery, NAMES, specific="specific_", shared="shared_", as_released=True)
        for side, chunks in zip(("query", "gallery"), sides, strict=True):
            letters = {"rgb": "R", "nir": "N", "tir": "T"}
            named = [f"{kind}_{letters[name]}" for kind, name in (chunk.split("_") for chunk in chunks)]
            assert named == said[f"{side}_chunks"], f"{pair}: {side}"
        found = [unit(jnp.concatenate([features[chunk] for chunk in chunks], axis=1)) for chunks in sides]
        width = features["specific_rgb"].shape[1]
        for side, x in zip(("query", "gallery"), found, strict=True):
            outputs[f"any_to_any/{pair}/{side}_head"] = x.reshape(len(x), -1, width)[:, :, :HEAD].reshape(len(x), -1)
        outputs[f"any_to_any/{pair}/distance"] = jnp.square(found[0][:, None] - found[1][None]).sum(-1)
    return outputs


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(EVALUATED, clip_trunk_runs.is_slow)))
def test_evaluation(path, dtype, x64):
    run = clip_trunk_runs.Run(path, dtype, "mdreid")
    variables = run.variables()

    @jax.jit
    def evaluate(variables, batch):
        features = run.method.embed(variables, batch)
        outputs = {**run.trunk(variables, batch), **compared(features, run.case), "feature": features["all"]}
        for key in run.golden.arrays:
            if key.startswith("missing/"):
                gone = key.split("/")[1].removesuffix("@64")
                present = [name for letter, name in clip_trunk_runs.LETTERS.items() if letter not in gone]
                count = run.golden.arrays[key].shape[0]
                outputs[f"missing/{gone}"] = of_present(features, present)[:count]
        return outputs | {"distance": jnp.square(unit(features["all"])[:, None] - unit(features["all"])[None]).sum(-1)}

    outputs = evaluate(variables, run.batch("eval"))
    outputs["single_image_feature"] = jax.jit(run.method.embed)(variables, run.batch("eval", 1))["all"]
    run.compare(outputs)
    precisions.forget()


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(TRAINED, lambda *_: True)))
def test_training(path, dtype, x64):
    run = clip_trunk_runs.Run(path, dtype, "mdreid")
    method = run.method

    def observe(variables, batch):
        specific, shared = method.features(variables, batch, True)
        features = dict(zip(NAMES, specific, strict=True)) | {"shared": jnp.concatenate(list(shared), axis=1)}
        logits, _ = method.classified(variables, features)
        pairs, of_pairs, _ = method.paired(variables, specific, shared)
        return {"features": features, "logits": logits, "pairs": pairs, "of_pairs": of_pairs}

    reports, outputs, variables = run.train(observe)
    options = method.config.loss
    for number, report in enumerate(reports):
        found = {"loss": report["loss"], "orth": report["orthogonality"], "disc": report["disentangling"]}
        for name, feature in report["features"].items():
            entropy, triplet = report[f"ce_{name}"], report[f"triplet_{name}"]
            weighted = options.ce_weight * entropy + options.triplet_weight * triplet
            found |= {f"id_{name}": entropy, f"triplet_{name}": triplet, f"loss_{name}": weighted}
            found |= {f"{name}_score": report["logits"][name]}
            found[name if name == "shared" else f"{name}_specific"] = feature
        for position, name in enumerate(NAMES):
            theirs = f"{name[0]}s"
            found |= {f"{theirs}_feat": report["pairs"][position], f"{theirs}_score": report["of_pairs"][position]}
        outputs.update({f"step{number}/{name}": np.asarray(value) for name, value in found.items()})
    outputs["feature_after"] = jax.jit(method.embed)(variables, run.batch("step0"))["all"]
    run.compare(outputs)
    precisions.forget()
