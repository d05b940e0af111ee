"""IEEE's networks and training steps against numbers of the authors' code.

Every case file of the suite ``ieee`` that holds a ``state_dict`` is run, in float32 and in float64. What a case is
follows from its contents; weights enter through the conversion code that a user's checkpoint takes.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import precisions
import pytest

from configs import ieee_rgbnt201
from mmreid_jax.convert import layout as layouts
from mmreid_jax.methods import base
from mmreid_jax.methods.ieee import LAYERS
from mmreid_jax.testing import goldens
from mmreid_jax.training import state as states
from mmreid_jax.training import step as steps

CASES = [path for path in goldens.cases("ieee") if "state_dict" in goldens.load(path).json]
LETTERS = {"R": "rgb", "N": "nir", "T": "tir"}
# The README of the suite: arrays are rounded to float32, so that float64 agrees to this part of the largest value;
# after the third step to the second number. Scalars are stored in float64.
FLOAT64, FLOAT64_LATE, SCALAR64, SCALAR64_LATER = 1e-6, 1e-5, 1e-9, 1e-6
FLOAT32 = 1e-5
# The tolerances of a file are ten times the noise of one float32 run. A gradient's noise comes from the few ReLUs whose
# sign float32 turns over, another set on every machine; as for the plain backbone the Euclidean norm of its error may
# be this part of its own, or the file's share where that is larger. float64 is the judge.
GRADIENT_FLOAT32 = 0.05
# Scalars of float32 runs: norms of gradients, and what later steps make of the gradient's noise.
NORM_FLOAT32, SCALAR_FLOAT32_LATER = 1e-2, 1e-3
# What a file calls not comparable has the right order of magnitude.
NOT_COMPARABLE = 2.0
ZERO = 1e-6


def kind_of(case):
    """What a case asks for, from what it holds."""
    if "optimizer" in case:
        return "train"
    return {"eval": "evaluate", "trai": "forward"}[case["mode"][:4]]


def is_slow(path, dtype):
    """What runs by default, in float64: the evaluation of the whole method, nothing switched off."""
    case = goldens.load(path).json
    return dtype == "float32" or kind_of(case) != "evaluate" or not all(case.get("switches", {}).values())


def is_small(case):
    """Whether images are small."""
    return case["height"] * case["width"] <= 96 * 48


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(CASES, is_slow)))
def test_case(path, dtype, x64):
    run = Run(path, jnp.dtype(dtype))
    {"evaluate": evaluate, "forward": forward, "train": train}[kind_of(run.case)](run)
    precisions.forget()


def cut(value, limit=512):
    """The stored slice of an array: every s-th value, s the smallest stride that is coprime with its size."""
    flat = np.asarray(value).reshape(-1)
    stride = max(1, flat.size // limit)
    while math.gcd(stride, flat.size) != 1:
        stride += 1
    # A copy, because a slice would keep the whole array in memory.
    return flat[:: stride if flat.size >= 1024 else 1][:limit].copy()


class Run:
    """A case set up in one precision."""

    def __init__(self, path, dtype):
        self.golden = goldens.load(path)
        self.case = self.golden.json
        self.dtype = dtype
        self.recipe = goldens.recipe()
        self.names = {name: tuple(shape) for name, shape in self.case["state_dict"]}
        self.method = self.build()
        self.layout = self.method.convert_layouts()["ieee"]

    def build(self):
        """The method of the case, built from the released experiment's config."""
        config = ieee_rgbnt201.get_config()
        config.data.image_size = (self.case["height"], self.case["width"])
        config.model.cim = any(name.startswith("convOne.") for name in self.names)
        config.model.cim_attention = any(name.startswith("CA.") for name in self.names)
        config.model.rem = "code" if "REM.0.param" in self.names else "off"
        # The same numbers in less memory, which large images in float64 need.
        config.model.remat = not is_small(self.case)
        options = self.case.get("optimizer")
        if options:
            assert options["name"] == "SGD"
            assert options["dampening"] == 0
            config.loss.name = self.case["loss"]
            config.loss.margin = float(self.case["margin"])
            for key in ("weight_m", "weight_x", "label_smoothing"):
                config.loss[key] = self.case[key]
            config.optim.schedule = "constant"
            for key in ("lr", "momentum", "nesterov", "weight_decay"):
                config.optim[key] = options[key]
        return base.build(config, base.DataFacts(self.case["num_classes"], 4, 1, tuple(LETTERS.values())))

    def variables(self):
        """The weights of the case in our trees."""
        entries = dict(self.recipe.state_dict(self.case["seed"], self.case["state_dict"]))
        override = (self.case.get("weight_overrides") or {}).get("multiply")
        for name in entries:
            if override and name.endswith(override["suffix"]):
                entries[name] = entries[name] * np.float32(override["factor"])
        like = jax.eval_shape(self.method.init, jax.random.key(0))
        cast = lambda t: self.dtype if jnp.issubdtype(t, jnp.floating) else t  # noqa: E731
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, cast(x.dtype)), like)
        loaded, report = layouts.import_state(self.layout, entries, like)
        assert set(report.used) == set(entries)
        # Copies: memory that numpy shares cannot be given to the next state.
        return jax.tree.map(jnp.array, loaded)

    def export(self, params, batch_stats):
        """Trees of the method under the names and in the layout of PyTorch."""
        exported = layouts.export_state(
            self.layout, jax.tree.map(np.asarray, {"params": params, "batch_stats": batch_stats})
        )
        assert list(exported) == list(self.names), "the order of the authors' file"
        return exported

    def images(self, key):
        """The inputs under a key as NHWC images by modality."""
        count, height, width = self.case["batch"], self.case["height"], self.case["width"]
        out = {}
        for letter, modality in LETTERS.items():
            low = self.recipe.array(self.case["seed"], f"{key}/{letter}/low", (count, 3, 8, 4))
            noise = self.recipe.array(self.case["seed"], f"{key}/{letter}/noise", (count, 3, height, width))
            up = np.repeat(np.repeat(low, height // 8, axis=2), width // 4, axis=3)
            out[modality] = jnp.asarray(np.moveaxis(np.float32(up + 0.25 * noise), 1, -1), self.dtype)
        return {"images": out}

    def compare(self, outputs):
        """Compares every stored number of this precision; a number that nothing computes is a failure."""
        wide = self.dtype == jnp.float64
        for key, expected in self.golden.arrays.items():
            if wide and (key.startswith(("f32/", "param_after")) or f"{key}_f64" in self.golden.arrays):
                continue
            if not wide and key.endswith("_f64"):
                continue
            name = key.removeprefix("f32/").removesuffix("_f64")
            assert name in outputs, f"nothing computes {key}"
            actual = np.asarray(outputs[name])
            if key.endswith("_f64") and actual.shape != expected.shape:
                actual = actual[:, ::2]
            assert actual.shape == expected.shape, f"{key}: {actual.shape}, {expected.shape}"
            if key.endswith("num_batches_tracked"):
                np.testing.assert_array_equal(actual, expected, err_msg=key)
                continue
            difference = actual.astype(np.float64) - expected
            self.check(key.removeprefix("f32/"), difference, expected)

    def check(self, key, difference, expected):
        """Asserts that an array differs from the stored one by no more than its tolerance."""
        given = self.case["tolerance_float32_relative_to_max"].get(key, FLOAT32)
        error, scale = float(np.abs(difference).max()), float(np.abs(expected).max())
        if isinstance(given, str) and given.startswith("analytically zero"):
            assert error <= ZERO, f"{key}: {error:.3g}"
        elif self.dtype == jnp.float64:
            allowed = scale * (FLOAT64_LATE if "_after3/" in key else FLOAT64)
            assert error <= allowed, f"{key}: error {error:.3g}, allowed {allowed:.3g}, scale {scale:.3g}"
        elif key.startswith(("grad/", "delta_after", "param_after")):
            # A parameter after a step may be off by what the step may be off by, and by its own rounding.
            change = key.replace("param_after", "delta_after")
            share = self.case["tolerance_float32_relative_to_max"].get(change, FLOAT32)
            if isinstance(share, str):
                share = ZERO if share.startswith("analytically zero") else NOT_COMPARABLE
            allowed = max(share, GRADIENT_FLOAT32) * np.linalg.norm(self.golden.arrays[change])
            if change != key:
                allowed += given * scale * math.sqrt(expected.size)
            error = np.linalg.norm(difference)
            assert error <= allowed, f"{key}: norm of the error {error:.3g}, allowed {allowed:.3g}"
        else:
            assert error <= given * scale, f"{key}: error {error:.3g}, allowed {given * scale:.3g}, scale {scale:.3g}"

    def compare_scalars(self, outputs):
        """Compares every scalar of the json."""
        for key, expected in self.case["scalars"].items():
            assert key in outputs, f"nothing computes {key}"
            actual, wanted = float(outputs[key]), expected[str(self.dtype)]
            scale = max(abs(wanted), 1e-30)
            if "acc" in key.rsplit("/", 1)[-1]:
                # The authors' accuracies are float32 in both runs; a sample is at least 1e-2 percent.
                allowed = 1e-5 if self.dtype == jnp.float64 else math.inf
            elif max(map(abs, expected.values())) < ZERO:
                allowed = ZERO
            elif self.dtype == jnp.float64:
                allowed = scale * (SCALAR64 if key.startswith(("step0", "grad")) else SCALAR64_LATER)
            else:
                least = NORM_FLOAT32 if "grad" in key else FLOAT32 if "step0" in key else SCALAR_FLOAT32_LATER
                allowed = max(10 * abs(expected["float32"] - expected["float64"]), least * scale)
            assert abs(actual - wanted) <= allowed, f"{key}: {actual}, expected {wanted}, allowed {allowed:.3g}"


def middle(outputs, layer1):
    """The intermediate values that files hold, from what the forward pass returns for every modality."""
    found = {}
    for letter, out, first in zip(LETTERS, outputs, layer1, strict=True):
        out = {name: np.asarray(value) for name, value in out.items()}
        found[f"mid/layer1_{letter}"] = np.asarray(first).mean((1, 2))[:, ::4]
        found[f"mid/backbone_{letter}"] = out["backbone"].mean((1, 2))[:, ::8]
        if "attention" in out:
            found[f"mid/channel_attention_{letter}"] = out["attention"][:, ::8]
        found[f"mid/cim_{letter}"] = out["maps"].mean((1, 2))[:, ::8]
        found[f"mid/cim_parts_{letter}"] = np.moveaxis(out["parts"], 1, 2)[:, ::32]
        found[f"mid/reduce_{letter}_global"] = out["global_reduced"][:, ::8, None]
        found[f"mid/reduce_{letter}_part"] = np.moveaxis(out["parts_reduced"], 1, 2)[:, ::8]
        for part in range(out["related"].shape[1]):
            found[f"mid/rem_{letter}_{part}"] = out["related"][:, part, ::8]
    return found


def first_stage(run, variables, batch, train):
    """The map of the first stage for every modality."""
    stages = []
    for name in LETTERS.values():
        images = batch["images"][name]
        tree = {collection: variables[collection]["backbone"][name] for collection in ("params", "batch_stats")}
        out = run.method.backbone.apply(tree, images, train, True, mutable=["batch_stats"] if train else False)
        stages.append((out[0] if train else out)["layer1"])
    return stages


def evaluate(run):
    # One program: the parts that its outputs share are computed once.
    @jax.jit
    def everything(variables, batch):
        shared = run.method.forward(variables, batch)[0], first_stage(run, variables, batch, False)
        return run.method.embed(variables, batch), run.method.maps(variables, batch), *shared

    features, maps, outputs, first = everything(run.variables(), run.images(run.case["input_key"]))
    for out, modality in zip(outputs, LETTERS.values(), strict=True):
        np.testing.assert_array_equal(out["maps"], maps[modality])
    run.compare({"features": features["whole"], **middle(outputs, first)})


def forward(run):
    variables, batch = run.variables(), run.images(run.case["input_key"])

    @jax.jit
    def everything(variables, batch):
        return *run.method.forward(variables, batch, frozenset(LAYERS)), first_stage(run, variables, batch, True)

    outputs, stats, first = everything(variables, batch)
    found = middle(outputs, first)
    for letter, out in zip(LETTERS, outputs, strict=True):
        logits, feature = np.moveaxis(np.asarray(out["logits"]), 1, 0), np.asarray(out["embedding"])
        found[f"logits_{letter}"] = logits[[0, -1]] if run.case["num_classes"] > 100 else logits
        found[f"feat_{letter}"] = feature / np.maximum(np.linalg.norm(feature, axis=1, keepdims=True), 1e-12)
    exported = run.export(variables["params"], stats)
    run.compare({**found, **{f"bn/{name}": cut(value) for name, value in exported.items()}})


def train(run):
    """The steps of a case with the program's own training step."""
    method, name = run.method, run.golden.name
    variables = run.variables()
    optimizer = method.optimizer(variables["params"], np.array([1000]))
    before = {key: cut(value) for key, value in run.export(variables["params"], variables["batch_stats"]).items()}
    state = states.create(variables, recording(optimizer))
    del variables
    step = jax.jit(steps.train_step(method.loss, recording(optimizer), seed=0), donate_argnums=0)
    outputs, scalars = {}, {}
    for number, labels in enumerate(run.case["labels"]):
        batch = {**run.images(f"{name}/step{number}"), "identity": jnp.asarray(labels, jnp.int32)}
        state, metrics = step(state, batch)
        if number == 0:
            exported = run.export(state.opt_state[1], state.batch_stats)
            squares = {key: np.square(value.astype(np.float64)).sum() for key, value in exported.items()}
            outputs.update({f"grad/{key}": cut(value) for key, value in exported.items()})
            scalars.update({f"grad/{key}/l2": math.sqrt(value) for key, value in squares.items()})
            scalars["grad_total_l2"] = math.sqrt(sum(value for key, value in squares.items() if not is_buffer(key)))
            for key in run.case["grad_is_none"]:
                assert not squares[key], key
            del exported
        scalars.update(summary(number, metrics))
        after = {key: cut(value) for key, value in run.export(state.params, state.batch_stats).items()}
        for key, value in after.items():
            if is_buffer(key):
                outputs[f"bn_after{number + 1}/{key}"] = value
            else:
                outputs[f"param_after{number + 1}/{key}"] = value
                outputs[f"delta_after{number + 1}/{key}"] = value.astype(np.float64) - before[key]
        for key in run.case["grad_is_none"]:
            np.testing.assert_array_equal(after[key], before[key], err_msg=key)
    run.compare(outputs)
    run.compare_scalars(scalars)


def recording(optimizer):
    """An optimiser that keeps the last gradient in its state."""

    def init(params):
        return optimizer.init(params), jax.tree.map(jnp.zeros_like, params)

    def update(gradient, state, params):
        updates, inner = optimizer.update(gradient, state[0], params)
        return updates, (inner, gradient)

    return optax.GradientTransformation(init, update)


def is_buffer(name):
    """Whether a name is that of a running statistic."""
    return name.rsplit(".", 1)[-1].startswith(("running_", "num_batches"))


def summary(number, metrics):
    """The logged terms under the names of both of the authors' engines."""
    found = {"loss": metrics["loss"], "loss_all": metrics["loss"], "LossX": metrics["ce"]}
    if "between" in metrics:
        found["LossM"] = metrics["between"]
    for letter, modality in LETTERS.items():
        for gap in ("", "_"):
            found[f"loss{gap}{letter}"] = metrics[f"ce_{modality}"]
            found[f"acc{gap}{letter}"] = 100 * metrics[f"accuracy_{modality}"]
    return {f"step{number}/summary/{name}": value for name, value in found.items()}
