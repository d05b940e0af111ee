"""CAJ's network and training steps against numbers of the authors' code.

Every case file of the suite ``caj`` that holds a ``state_dict`` is run, in float32 and in float64. Weights enter
through the conversion code that a user's checkpoint takes.
"""

from __future__ import annotations

import agw_runs
import jax
import jax.numpy as jnp
import numpy as np
import precisions
import pytest

from configs import caj_sysu
from mmreid_jax.losses import distillation
from mmreid_jax.testing import goldens

CASES = [path for path in goldens.cases("caj") if "state_dict" in goldens.load(path).json]


def set_up(path, dtype):
    case, config = goldens.load(path).json, caj_sysu.get_config()
    assert (case["triplet"]["kind"], config.loss.triplet) == ("ADP", "squared_difference")
    config.loss.kl_weight = case["kl_weight"]
    config.loss.alpha, config.loss.gamma = float(case["triplet"]["alpha"]), float(case["triplet"]["gamma"])
    config.loss.square = bool(case["triplet"]["square"])
    run = agw_runs.Run(path, dtype, config)

    def as_drawn(batch, key):
        """The case's images, whose channels are mixed already."""
        images = batch["images"]
        return {"visible": jnp.concatenate([images["rgb"], images["rgb_2"]]), "infrared": images["nir"]}

    run.method.training_images = as_drawn
    return run


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(CASES, lambda _, dtype: dtype == "float32")))
def test_evaluation(path, dtype, x64):
    run = set_up(path, dtype)
    variables, _ = run.variables()
    asked = {key.split("/")[1] for key in run.golden.arrays if key.startswith("eval_flip/")}
    outputs = {}
    for theirs in asked:
        ours = agw_runs.MODALITIES[theirs]
        features = jax.jit(run.method.embed)(variables, {"images": {ours: run.images(f"eval/{theirs}")}})
        outputs.update({f"eval_flip/{theirs}/{name}": features[f"{name}_{ours}"] for name in ("fc", "pool")})
    run.compare(outputs, lambda name: name.startswith("eval"))
    precisions.forget()


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(CASES, lambda *_: True)))
def test_training(path, dtype, x64):
    run = set_up(path, dtype)
    method, labels = run.method, run.case["labels_per_modality"]
    names = {"rgb": "visible", "rgb_2": "augmented", "nir": "thermal"}
    batches = [
        {
            "images": {ours: run.images(f"step{i}/{theirs}") for ours, theirs in names.items()},
            "identity": jnp.asarray(own, jnp.int32),
        }
        for i, own in enumerate(labels)
    ]

    def observe(variables, batch):
        count = len(batch["identity"])
        logits = method.forward(variables, method.training_images(batch, jax.random.key(0)), True)[0]["logits"]
        # Computed by the authors whether it has a weight or not.
        return {"logits": logits, "divergence": distillation.softened_divergence(logits[:count], logits[2 * count :])}

    reports, outputs, _ = run.train(batches, observe)
    outputs["train/logits"] = reports[0]["logits"]
    for number, report in enumerate(reports):
        terms = {"loss_id": "ce", "loss_tri": "triplet", "loss_kl": "divergence"}
        outputs.update({f"step{number}/{theirs}": report[ours] for theirs, ours in terms.items()})
        outputs[f"step{number}/correct_tri"] = np.rint(3 * len(labels[number]) * report["ranked"]).astype(int)
    run.compare(outputs, lambda name: not name.startswith("eval"))
    precisions.forget()
