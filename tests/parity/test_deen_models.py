"""DEEN's network and training steps against numbers of the authors' code.

Every case file of the suite ``deen`` that holds a ``state_dict`` is run, in float32 and in float64. Weights enter
through the conversion code that a user's checkpoint takes.
"""

from __future__ import annotations

import importlib
import re

import agw_runs
import deen_kinds
import described
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import precisions
import pytest

from mmreid_jax.losses.vectors import l2_normalise
from mmreid_jax.methods import base
from mmreid_jax.models import deen
from mmreid_jax.testing import goldens

NETWORKS = deen_kinds.of_kind("network")
STEPS = [golden.path for golden in NETWORKS if deen_kinds.steps_of(golden)]
EVALUATED = [golden.path for golden in NETWORKS if not deen_kinds.steps_of(golden)]
STREAMS = {"visible": "visible", "thermal": "infrared"}
# Of the released program: its own sum of six products, and the second score of its test.
PLAIN, WEIGHTED = (1.0, 1.0), (0.1, 0.9)
# The attention is cubic in what it gets, so that two float32 programs part company after some steps; what they compute
# from the second step on is compared in float64.
DRIFTS = re.compile(r"after|step[1-9]")


class Run(agw_runs.Run):
    """A case set up in one precision, from the released experiment's config of its data set."""

    def __init__(self, path, dtype):
        case = goldens.load(path).json
        assert case["method"] == "deen"
        config = importlib.import_module(f"configs.deen_{case['dataset']}").get_config()
        config.loss.grouping = "positional"
        if "dropout" in case:
            config.model.dropout = described.number(case["dropout"], r"p = ([\d.]+)")
            config.loss.cpm_weight, config.loss.orthogonality_weight = case["lambda_1"], case["lambda_2"]
            config.train.identities_per_batch = case["ids_per_batch"]
        super().__init__(path, dtype, config, layout="deen")

    def inputs(self, key, count):
        """So many images under a key, NHWC."""
        drawn = self.recipe.array(self.case["seed"], key, (count, 3, *self.case["image_hw"]))
        return jnp.asarray(np.moveaxis(drawn, 1, -1), self.dtype)

    def scoring(self, **options):
        """The method with other options of the evaluation."""
        config = self.method.config.copy_and_resolve_references()
        config.eval.update(options)
        return base.build(config, self.method.facts)


def units(out):
    """The six features of every image, as the authors return them: rows copy by copy."""
    return {name: l2_normalise(out[name]) for name in ("pool", "fc")}


def stages_of(method, variables, images):
    """Means over the positions of what every part of the network makes, and its length, by the authors' names."""
    seen = {}

    def watch(call, args, kwargs, context):
        made = call(*args, **kwargs)
        name = context.module.name or ""
        if context.method_name == "__call__" and isinstance(context.module, deen.Aggregation):
            number = name.removeprefix("aggregation")
            seen[f"layer{number}"], seen[f"mfa{number}"] = args[0], made
        elif context.method_name == "__call__" and isinstance(context.module, deen.ChannelAttention):
            seen[f"cnl{context.module.parent.name.removeprefix('aggregation')}"] = made
        elif context.method_name == "__call__" and isinstance(context.module, deen.Expansion):
            seen["dee"] = made
        return made

    network = {name: tree["backbone"] for name, tree in variables.items()}
    with nn.intercept_methods(watch):
        stages = method.backbone.apply(network, images, False, return_stages=True)
    last = f"layer{method.backbone.expanded + 1}"
    seen |= {"stem": stages["maxpool"], last: stages[last]}
    means = {f"{name}_mean": maps.mean((1, 2)) for name, maps in seen.items()}
    return means | {f"{name}_norm": jnp.linalg.norm(maps.ravel()) for name, maps in seen.items()}


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(EVALUATED, lambda *_: True)))
def test_evaluation(path, dtype, x64):
    run = Run(path, dtype)
    variables, _ = run.variables()
    plain, mirrored = run.scoring(mirror=False, weights=PLAIN), run.scoring(mirror=True, weights=PLAIN)
    weighted = run.scoring(mirror=True, weights=WEIGHTED)

    @jax.jit
    def evaluate(variables, images):
        outputs, features = {}, {}
        # Each modality alone: that both together give the same is tested elsewhere.
        for theirs, ours in agw_runs.MODALITIES.items():
            stream = {STREAMS[theirs]: images[theirs]}
            out, _ = plain.forward(variables, stream)
            found = units(out) | stages_of(plain, variables, stream)
            outputs |= {f"eval/{theirs}/{name}": value for name, value in found.items()}
            batch = {"images": {ours: images[theirs]}}
            for name, method in (("plain", plain), ("mirrored", mirrored), ("weighted", weighted)):
                features |= {f"{name}/{key}": value for key, value in method.embed(variables, batch).items()}
        return outputs, features

    images = {theirs: run.inputs(f"eval/{theirs}", run.case["batch"]) for theirs in agw_runs.MODALITIES}
    outputs, features = evaluate(variables, images)
    scores = {
        "train_pool1": "plain/pool",
        "train_bn1": "plain/fc",
        "train_all": "plain/all",
        "test": "mirrored/all",
        "test_weighted": "weighted/all",
    }
    rows, columns = re.search(r"query \((\w+)\).* gallery \((\w+)\)", run.case["keys"]["score/*"]).groups()
    for theirs, ours in scores.items():
        query, gallery = (features[f"{ours}_{agw_runs.MODALITIES[side]}"] for side in (rows, columns))
        outputs[f"score/{theirs}"] = query @ gallery.T
    run.compare(outputs, lambda name: True)
    precisions.forget()


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(STEPS, lambda *_: True)))
def test_training(path, dtype, x64):
    run = Run(path, dtype)
    method, labels = run.method, run.case["labels_per_modality"]
    batches = (
        {
            "images": {ours: run.inputs(f"step{i}/{theirs}", len(own)) for theirs, ours in agw_runs.MODALITIES.items()},
            "identity": jnp.asarray(own, jnp.int32),
        }
        for i, own in enumerate(labels)
    )

    def observe(variables, batch):
        images = {STREAMS[theirs]: batch["images"][ours] for theirs, ours in agw_runs.MODALITIES.items()}
        out, _ = method.forward(variables, images, True)
        return {"pool": out["pool"], "logits": out["logits"]}

    reports, outputs, variables = run.train(batches, observe)
    outputs.update({f"train/{name}": reports[0][name] for name in ("pool", "logits")})
    options = method.config.loss
    for number, report in enumerate(reports):
        pairs = options.cpm_weight * (report["cpm_2"] + report["cpm_3"])
        apart = options.orthogonality_weight * report["orthogonality"]
        terms = {"loss_id": report["ce"], "loss_tri": report["triplet"], "loss": report["loss"]}
        terms |= {"cpm_12": report["cpm_2"], "cpm_13": report["cpm_3"], "loss_cpm": pairs}
        terms |= {"ort": report["orthogonality"], "loss_ort": apart}
        outputs.update({f"step{number}/{name}": value for name, value in terms.items()})
    shape = described.shape(run.case["inputs"]["eval/visible"], "eval/visible", H=0, W=0)
    out, _ = jax.jit(method.forward)(variables, {"visible": run.inputs("eval/visible", shape[0])})
    outputs |= {f"after{len(labels)}/eval_visible_{name}": value for name, value in units(out).items()}
    exact = jnp.dtype(dtype) == jnp.float64
    run.compare(outputs, lambda name: exact or not DRIFTS.match(name))
    precisions.forget()
