"""Base's and AGW's networks and training steps against numbers of the authors' code.

Every case file of the suite ``agw`` that holds a ``state_dict`` is run, in float32 and in float64. Weights enter
through the conversion code that a user's checkpoint takes.
"""

from __future__ import annotations

import agw_runs
import jax
import jax.numpy as jnp
import numpy as np
import precisions
import pytest

from configs import agw_sysu, base_sysu
from mmreid_jax.testing import goldens

CASES = [path for path in goldens.cases("agw") if "state_dict" in goldens.load(path).json]
CONFIGS = {"agw": agw_sysu, "base": base_sysu}
STAGES = {"stem": "maxpool", "layer1": "layer1", "layer2": "layer2", "layer3": "layer3"}


def set_up(path, dtype):
    method = goldens.load(path).json["method"]
    assert method in CONFIGS, f"case of unknown method {method!r}"
    return agw_runs.Run(path, dtype, CONFIGS[method].get_config())


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(CASES, lambda _, dtype: dtype == "float32")))
def test_evaluation(path, dtype, x64):
    run = set_up(path, dtype)
    variables, _ = run.variables()

    @jax.jit
    def evaluate(variables, images):
        # Each modality alone: that both together give the same is tested elsewhere.
        features, means = {}, {}
        for theirs, ours in agw_runs.MODALITIES.items():
            features.update(run.method.embed(variables, {"images": {ours: images[theirs]}}))
            network = {name: tree["backbone"] for name, tree in variables.items()}
            stream = {"visible": "visible", "thermal": "infrared"}[theirs]
            stages = run.method.backbone.apply(network, {stream: images[theirs]}, False, return_stages=True)
            means[theirs] = {name: stages[part].mean((1, 2)) for name, part in STAGES.items()}
        return features, means

    features, means = evaluate(variables, {name: run.images(f"eval/{name}") for name in agw_runs.MODALITIES})
    outputs = {}
    for theirs, ours in agw_runs.MODALITIES.items():
        outputs.update({f"eval/{theirs}/{name}": features[f"{name}_{ours}"] for name in ("fc", "pool")})
        outputs.update({f"eval/{theirs}/{name}_mean": value for name, value in means[theirs].items()})
    run.compare(outputs, lambda name: name.startswith("eval/"))
    precisions.forget()


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(CASES, lambda *_: True)))
def test_training(path, dtype, x64):
    run = set_up(path, dtype)
    method, labels = run.method, run.case["labels_per_modality"]
    batches = [
        {
            "images": {ours: run.images(f"step{i}/{theirs}") for theirs, ours in agw_runs.MODALITIES.items()},
            "identity": jnp.asarray(own, jnp.int32),
        }
        for i, own in enumerate(labels)
    ]

    def observe(variables, batch):
        out, _ = method.forward(variables, method.training_images(batch, jax.random.key(0)), True)
        return {"pool": out["pool"], "logits": out["logits"]}

    reports, outputs, variables = run.train(batches, observe)
    outputs.update({f"train/{name}": reports[0][name] for name in ("pool", "logits")})
    for number, report in enumerate(reports):
        names = {"loss_id": "ce", "loss_tri": "triplet", "loss": "loss"}
        outputs.update({f"step{number}/{theirs}": report[ours] for theirs, ours in names.items()})
        outputs[f"step{number}/correct_tri"] = np.rint(2 * len(labels[number]) * report["ranked"]).astype(int)
    embedded = jax.jit(method.embed)(variables, {"images": {"rgb": run.images("eval/visible")}})
    outputs[f"after{len(reports)}/eval_visible_fc"] = embedded["fc_rgb"]
    run.compare(outputs, lambda name: not name.startswith("eval/"))
    precisions.forget()
