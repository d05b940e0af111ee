"""DDAG's network and training steps against numbers of the authors' code.

Every case file of the suite ``ddag`` with images is run, in float32 and in float64. Weights enter through the
conversion code that a user's checkpoint takes.
"""

from __future__ import annotations

import agw_runs
import jax
import jax.numpy as jnp
import numpy as np
import precisions
import pytest

from configs import ddag_sysu
from mmreid_jax.testing import goldens
from mmreid_jax.training import optimizers

CASES = [path for path in goldens.cases("ddag") if "image_hw" in goldens.load(path).json]
EVALUATED = [path for path in CASES if any(key.startswith("eval/") for key in goldens.load(path).arrays)]
# The authors' names of the terms of the loss, and ours.
TERMS = {"id": "ce", "tri": "triplet", "part": "part", "graph": "graph"}


class Run(agw_runs.Run):
    """A case set up in one precision, from the released experiment's config."""

    def __init__(self, path, dtype):
        case, config = goldens.load(path).json, ddag_sysu.get_config()
        assert case["alpha"] == 0.2
        config.model.parts = case["part"]
        config.model.graph_heads = case["nheads"]
        config.model.graph_dim = case["low_dim"]
        config.model.dropout = case["dropout"]
        config.loss.graph_weight = float(case["wG"])
        super().__init__(path, dtype, config, layout="ddag")

    def rates(self, params):
        """Learning rates of the authors' groups: trunk, neck, classifier, parts, every head, last graph layer."""
        options = optimizers.OptimizerOptions.of(self.method.config.optim)
        groups = optimizers.assign(options.groups(), params)
        layers = [groups[name] for name in ("backbone", "bottleneck", "classifier", "parts")]
        layers += [groups["graph"]["heads"]] * self.case["nheads"] + [groups["graph"]["out"]]
        factors = [{group.lr_factor for group in jax.tree.leaves(tree)} for tree in layers]
        assert all(len(found) == 1 for found in factors)
        return np.array([float(optimizers.rate(options, self.epoch_ends, found.pop())(0)) for found in factors])


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(EVALUATED, lambda _, dtype: dtype == "float32")))
def test_evaluation(path, dtype, x64):
    run = Run(path, dtype)
    variables, _ = run.variables()
    images = {ours: run.images(f"eval/{theirs}") for theirs, ours in agw_runs.MODALITIES.items()}
    # Each modality alone: that both together give the same is tested elsewhere.
    embed = jax.jit(lambda v, images: [run.method.embed(v, {"images": {k: x}}) for k, x in images.items()])
    features = {name: value for found in embed(variables, images) for name, value in found.items()}
    outputs = {
        f"eval/{theirs}/{feature}": features[f"{feature}_{ours}"]
        for theirs, ours in agw_runs.MODALITIES.items()
        for feature in ("fc", "fc_att")
    }
    run.compare(outputs, lambda name: name.startswith("eval/"))
    precisions.forget()


# Whole steps take minutes; by default DDAG's parts are compared (test_ddag_layers).
@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(CASES, lambda *_: True)))
def test_training(path, dtype, x64):
    run = Run(path, dtype)
    method, labels = run.method, run.case["labels_per_modality"]

    def images(number):
        return {ours: run.images(f"step{number}/{theirs}") for theirs, ours in agw_runs.MODALITIES.items()}

    def observe(variables, batch):
        out, _ = method.forward(variables, method.training_images(batch, jax.random.key(0)), True)
        graph = method.attend_graph(variables, out["pool"], jnp.tile(batch["identity"], 2), None)
        seen = {name: out[name] for name in ("pool", "logits", "logits_att")}
        return {**seen, "log_probs_graph": jax.nn.log_softmax(graph["logits"])}

    batches = ({"images": images(i), "identity": jnp.asarray(own, jnp.int32)} for i, own in enumerate(labels))
    reports, outputs, _ = run.train(batches, observe)
    for number, report in enumerate(reports):
        outputs.update({f"step{number}/loss_{theirs}": report[ours] for theirs, ours in TERMS.items()})
        outputs[f"step{number}/loss"] = report["ce"] + report["triplet"] + report["part"]
        outputs[f"step{number}/loss_total"] = report["loss"]
        outputs[f"step{number}/correct_tri"] = np.rint(2 * len(labels[number]) * report["ranked"]).astype(int)
    inside = ("pool", "logits", "logits_att", "log_probs_graph")
    outputs.update({f"train/{name}": reports[0][name] for name in inside})
    twice = np.tile(labels[0], 2)
    outputs["adj"] = np.equal.outer(twice, twice) + np.eye(len(twice))
    outputs["adj_norm"] = outputs["adj"] / np.linalg.norm(outputs["adj"], axis=1, keepdims=True)
    run.compare(outputs, lambda name: not name.startswith("eval/"))
    precisions.forget()
