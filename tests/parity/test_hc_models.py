"""Hetero-Center's networks and training steps against numbers of the authors' code.

Every case file of the suite ``hc`` that holds a ``state_dict`` is run, in float32 and in float64. Weights enter through
the conversion code that a user's checkpoint takes.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import observers
import precisions
import pytest

from configs import hc_sysu
from mmreid_jax.convert import layout as layouts
from mmreid_jax.methods import base
from mmreid_jax.testing import goldens
from mmreid_jax.training import state as states
from mmreid_jax.training import step as steps

CASES = [path for path in goldens.cases("hc") if "state_dict" in goldens.load(path).json]
MODALITIES = {"visible": "rgb", "thermal": "nir"}
# Large arrays are rounded to float32, so that float64 agrees to the first part of the largest value; those stored in
# float64 to the second. Later steps amplify what the weights' rounding makes of the first.
FLOAT64, STORED64, LATE64 = 1e-6, 1e-9, 1e-6
# The tolerances of a file are ten times the noise of one float32 run. A gradient's noise comes from the few ReLUs whose
# sign float32 turns over, another set on every machine; as for the plain backbone the Euclidean norm of its error may
# be this part of its own, or the file's share where that is larger. float64 is the judge.
GRADIENT_FLOAT32, NORM_FLOAT32, LATER_FLOAT32 = 0.05, 1e-2, 1e-3
FLOAT32 = 1e-5
ZERO = {"float32": 1e-5, "float64": 1e-12}


def is_small(path):
    """Whether a case has small images."""
    height, width = goldens.load(path).json["config"]["image_hw"]
    return height * width <= 160 * 64


def steps_are_slow(path, dtype):
    """Steps take long."""
    del path, dtype
    return True


def evaluation_is_slow(path, dtype):
    """What runs by default: everything in float64, small images in float32 as well."""
    return dtype == "float32" and not is_small(path)


class Run:
    """A case set up in one precision."""

    def __init__(self, path, dtype):
        self.golden = goldens.load(path)
        self.case = self.golden.json
        self.options = self.case["config"]
        self.dtype = jnp.dtype(dtype)
        self.recipe = goldens.recipe()
        self.method = self.build()
        self.layout = self.method.convert_layouts()["hetero_center"]
        self.entries = self.weights()

    def build(self):
        """The method of the case, built from the released experiment's config."""
        config, options, optimizer = hc_sysu.get_config(), self.options, self.case["optimizer"]
        assert optimizer["type"] == "SGD"
        config.data.image_size = tuple(options["image_hw"])
        config.model.backbone = options["arch"]
        config.model.embed_dim = options["low_dim"]
        config.model.strips = options["num_parts"]
        config.model.dropout = options["drop"]
        # The same numbers in less memory, which large images in float64 need.
        config.model.remat = not is_small(self.golden.path)
        config.loss.distance = options["dist_type"]
        config.loss.margin = float(options["margin"])
        config.loss.hc_weight = options["w_hc"]
        config.optim.schedule = "constant"
        config.optim.lr = optimizer["lr_heads"]
        config.optim.base_lr_factor = optimizer["lr_backbones"] / optimizer["lr_heads"]
        for key in ("momentum", "nesterov", "weight_decay"):
            config.optim[key] = optimizer[key]
        facts = base.DataFacts(options["class_num"], 4, 1, tuple(MODALITIES.values()))
        return base.build(config, facts)

    def weights(self):
        """The state_dict of the case."""
        entries = dict(self.recipe.state_dict(self.case["seed"], self.case["state_dict"]))
        scaling = self.case["parameter_scaling"]
        for name in entries:
            if ".layer" in name and name.endswith(scaling["suffix"]):
                entries[name] = entries[name] * np.float32(scaling["factor"])
        return entries

    def variables(self):
        """The weights of the case in our trees."""
        like = jax.eval_shape(self.method.init, jax.random.key(0))
        cast = lambda t: self.dtype if jnp.issubdtype(t, jnp.floating) else t  # noqa: E731
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, cast(x.dtype)), like)
        loaded, report = layouts.import_state(self.layout, self.entries, like)
        assert all(".fc." in name for name in report.dropped)
        assert set(report.used) | set(report.dropped) == set(self.entries)
        # Copies: memory that numpy shares cannot be given to the next state.
        return jax.tree.map(jnp.array, loaded)

    def export(self, params, batch_stats):
        """Trees of the method under the names and in the layout of PyTorch, without what the network never uses."""
        tree = jax.tree.map(np.asarray, {"params": params, "batch_stats": batch_stats})
        exported = layouts.export_state(self.layout, tree)
        assert set(exported) == set(self.entries), "a strict loader wants every key"
        return {name: value for name, value in exported.items() if ".fc." not in name}

    def images(self, key, count):
        """The images under a key, NHWC."""
        height, width = self.options["image_hw"]
        block = self.case["inputs"]["block"]
        coarse = self.recipe.array(self.case["seed"], f"{key}_blocks", (count, 3, height // block, width // block))
        fine = self.recipe.array(self.case["seed"], f"{key}_fine", (count, 3, height, width))
        pixels = np.repeat(np.repeat(coarse, block, axis=2), block, axis=3) + np.float32(0.25) * fine
        return jnp.asarray(np.moveaxis(pixels, 1, -1), self.dtype)

    def compare(self, outputs, evaluation):
        """Compares every stored number of this precision; a number that nothing computes is a failure."""
        for key, expected in self.golden.arrays.items():
            if key.startswith("eval") != evaluation or (key.startswith("f32/") and self.dtype == jnp.float64):
                continue
            name = key.removeprefix("f32/")
            assert name in outputs, f"nothing computes {key}"
            actual = np.asarray(outputs[name], np.float64)
            assert actual.shape == expected.shape, f"{key}: {actual.shape}, {expected.shape}"
            unused = np.isnan(expected)
            np.testing.assert_array_equal(unused, np.isnan(actual), err_msg=key)
            self.check(name, actual[~unused], expected[~unused])

    def check(self, key, actual, expected):
        """Asserts that an array differs from the stored one by no more than its tolerance."""
        given = self.case["recommended_tolerance"]["values"].get(key, FLOAT32)
        error, scale = float(np.abs(actual - expected).max()), float(np.abs(expected).max())
        late = key.startswith(("after", "step1", "step2"))
        if given is None:
            assert np.abs(actual).max() <= ZERO[str(self.dtype)], key
            return
        if self.dtype == jnp.float64:
            relative = LATE64 if late else STORED64 if expected.dtype == np.float64 else FLOAT64
            if self.golden.arrays[key].dtype == np.float32:
                relative = max(relative, FLOAT64)
            assert error <= relative * scale, f"{key}: error {error:.3g}, allowed {relative * scale:.3g}"
            return
        parameter = key.split("/", 1)[-1]
        if key.startswith("grad/") or (key.startswith("after") and parameter in self.case["sliced_parameters"]):
            # A parameter after a step may be off by what the step may be off by, and by its own rounding.
            step = expected if key.startswith("grad/") else expected - cut(self.entries[parameter])
            allowed = GRADIENT_FLOAT32 * np.linalg.norm(step) + given * scale * math.sqrt(expected.size)
            error = np.linalg.norm(actual - expected)
        else:
            least = NORM_FLOAT32 if key.endswith("norms") else LATER_FLOAT32 if late else FLOAT32
            allowed = max(given, least) * scale
        assert error <= allowed, f"{key}: error {error:.3g}, allowed {allowed:.3g}, scale {scale:.3g}"


def cut(value):
    """The stored slice of an array."""
    flat = np.asarray(value).reshape(-1)
    return flat[np.linspace(0, flat.size - 1, num=min(512, flat.size)).astype(np.int64)].astype(np.float64)


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(CASES, evaluation_is_slow)))
def test_evaluation(path, dtype, x64):
    run = Run(path, dtype)
    variables, embed = run.variables(), jax.jit(run.method.embed)
    outputs = {}
    images = {}
    for theirs, ours in MODALITIES.items():
        images[ours] = run.images(f"eval_{theirs}", run.options["n_eval"])
        features = embed(variables, {"images": {ours: images[ours]}})
        assert set(features) == {f"fc_{ours}", f"pool_{ours}"}
        outputs[f"eval_{theirs}_feat"] = features[f"fc_{ours}"]
        outputs[f"eval_{theirs}_pool"] = features[f"pool_{ours}"]
    both = embed(variables, {"images": images})
    outputs["eval_both_feat"] = np.concatenate([both[f"fc_{ours}"] for ours in MODALITIES.values()])
    run.compare(outputs, evaluation=True)
    precisions.forget()


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(CASES, steps_are_slow)))
def test_training(path, dtype, x64):
    """The steps of a case with the program's own training step."""
    run = Run(path, dtype)
    method, labels = run.method, jnp.asarray(run.options["labels"], jnp.int32)

    def observed(variables, batch, key, step, memory):
        total, (terms, stats, memory) = method.loss(variables, batch, key, step, memory)
        out, _ = method.forward(variables, batch, True)
        entropy, apart = method.strip_losses(out["embeddings"], out["logits"], labels)
        inside = {"entropy": entropy, "apart": apart, "logits": out["logits"], "embeddings": out["embeddings"]}
        return total, ({**terms, **inside}, stats, memory)

    variables = run.variables()
    optimizer = observers.recording(method.optimizer(variables["params"], np.array([1000])))
    state = states.create(variables, optimizer)
    del variables
    step = jax.jit(steps.train_step(observed, optimizer, seed=0), donate_argnums=0)
    outputs = {}
    for number in range(run.case["inputs"]["steps"]):
        images = {ours: run.images(f"train_{theirs}_{number}", len(labels)) for theirs, ours in MODALITIES.items()}
        state, metrics = step(state, {"images": images, "identity": labels})
        entropy, apart = np.asarray(metrics["entropy"]), np.asarray(metrics["apart"])
        by_strip = entropy + run.options["w_hc"] * apart
        outputs[f"step{number}_ce"] = entropy
        outputs[f"step{number}_hc"] = apart
        outputs[f"step{number}_part_loss"] = by_strip
        # The authors print the mean over the strips and optimise the sum.
        outputs[f"step{number}_logged_loss"] = metrics["loss"] / len(by_strip)
        if number == 0:
            outputs["train_logits"] = np.moveaxis(np.asarray(metrics["logits"]), 1, 0)
            outputs["train_feat"] = np.moveaxis(np.asarray(metrics["embeddings"]), 1, 0)
            exported = run.export(state.opt_state[1], state.batch_stats)
            outputs.update({f"grad/{name}": cut(value) for name, value in exported.items()})
            outputs["grad_norms"] = norms(run, exported, math.nan)
        exported = run.export(state.params, state.batch_stats)
        outputs.update({f"after{number + 1}/{name}": cut(value) for name, value in exported.items()})
        outputs[f"after{number + 1}/param_norms"] = norms(run, exported, None)
    run.compare(outputs, evaluation=False)
    precisions.forget()


def norms(run, exported, unused):
    """Lengths of all parameters of the file; `unused` is written for those that the network lacks, None: as read."""

    def length(name):
        if name not in exported and unused is not None:
            return unused
        return np.linalg.norm(np.asarray(exported.get(name, run.entries[name]), np.float64))

    return np.array([length(name) for name in run.case["parameters"]])
