"""Cases of the systems on CLIP's ViT-B/16, DeMo and MDReID, set up with the program's own method and checkpoint reader.

Everything about a network is read off the json of its case: widths and depth from the shapes in its ``state_dict``.
"""

from __future__ import annotations

import dataclasses
import importlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import observers

from mmreid_jax.convert import layout as layouts
from mmreid_jax.methods import base
from mmreid_jax.testing import goldens
from mmreid_jax.training import optimizers
from mmreid_jax.training import state as states
from mmreid_jax.training import step as steps

MODALITIES = {"RGB": "rgb", "NI": "nir", "TI": "tir"}
LETTERS = {"r": "rgb", "n": "nir", "t": "tir"}
# Of the largest value, as the README of the suites asks; Adam divides by small gradients.
FLOAT64, AFTER_STEPS = 1e-9, 1e-7


def kind_of(golden):
    """``train``, ``eval``, or a word for what a file without a network holds."""
    facts = golden.json
    if "grids" in facts:
        return "clip_load"
    if "state_dict" in facts:
        return "train" if "labels" in facts else "eval"
    marks = {"terms": "losses", "configs": "schedule", "image_sizes": "transforms", "queries": "evaluation"}
    return next((kind for key, kind in marks.items() if key in facts), "other")


def of_kind(kind, *suites):
    """Paths of the cases of suites that hold `kind`."""
    return [path for suite in suites for path in goldens.cases(suite) if kind_of(goldens.load(path)) == kind]


def is_slow(path, dtype):
    """Whole networks take minutes; by default those of one block are run in float64."""
    return dtype == "float32" or "trunk_blocks" not in goldens.load(path).json


def check(key, actual, expected, tolerances, dtype):
    """Asserts that an array is the stored one within the limits of its precision."""
    actual, name = np.asarray(actual), key.removesuffix("@64")
    assert actual.shape == expected.shape, f"{key}: {actual.shape}, {expected.shape}"
    if expected.dtype.kind in "iub":
        np.testing.assert_array_equal(actual, expected, err_msg=key)
        return
    error = actual.astype(np.float64) - expected.astype(np.float64)
    far, scale = np.abs(error).max(initial=0.0), np.abs(expected).max(initial=0.0)
    if jnp.dtype(dtype) == jnp.float64:
        allowed = (AFTER_STEPS if name.startswith("delta") or name == "feature_after" else FLOAT64) * scale
        assert far <= allowed, f"{key}: error {far:.3g}, allowed {allowed:.3g}, scale {scale:.3g}"
        return
    given = tolerances[name]
    norm, allowed = np.linalg.norm(error), given["rel_l2_tol"] * np.linalg.norm(expected.astype(np.float64))
    assert far <= given["atol"] or norm <= allowed, f"{key}: error {far:.3g} of {given['atol']:.3g}"


class Run:
    """A case with a network, set up in one precision.

    Args:
      path: of the case.
      dtype: of parameters and images.
      method: its name, which is that of its layout and begins the names of its configs.
    """

    def __init__(self, path, dtype, method):
        self.golden = goldens.load(path)
        self.case = case = self.golden.json
        self.dtype = jnp.dtype(dtype)
        self.recipe = goldens.recipe()
        self.shapes = dict(case["state_dict"])
        dataset = re.search(r"configs/(\w+)", case["config"])[1].lower()
        config = importlib.import_module(f"configs.{method}_{dataset}").get_config()
        config.data.image_size = tuple(case["image_hw"])
        config.model.side_weight = case["side_weight"]
        for key, ours in (("heads", "heads"), ("direct", "joint_head")):
            if key in case:
                config.model[ours] = case[key]
        if "dropout" in config.model:
            assert case["mode"] == "eval" or "dropout 0" in case["mode"]
            config.model.dropout = 0.0
        if options := case.get("optimizer"):
            assert (options["name"], options["weight_decay_kind"]) == ("Adam", "added to the gradient")
            (config.optim.beta1, config.optim.beta2), config.optim.weight_decay = (
                options["betas"],
                options["weight_decay"],
            )
            with config.optim.unlocked():
                config.optim.epsilon = options["eps"]
        facts = base.DataFacts(case["classes"], case["cameras"], 1, tuple(MODALITIES.values()))
        self.method = base.build(config, facts)
        self.method.backbone = self.method.backbone.clone(size=self.size())
        # The case names the epoch, counted from 1, whose rates its steps take.
        before = case.get("epoch_for_rates", 1) - 1
        self.epoch_ends = np.array([0] * before + [1000] * (config.optim.epochs - before))
        self.layout = self.method.convert_layouts()[method]
        self.entries = dict(self.recipe.state_dict(case["seed"], case["state_dict"]))
        for name, source in case.get("aliases", {}).items():
            self.entries[name] = self.entries[source]
        for suffix, factor in case.get("weight_scale", ()):
            for name in self.entries:
                if name.endswith(suffix):
                    self.entries[name] = self.entries[name] * np.float32(factor)

    def size(self):
        """The trunk's size, by the shapes of the case."""
        width, _, patch, _ = self.shapes["BACKBONE.base.conv1.weight"]
        blocks = {re.search(r"resblocks\.(\d+)\.", name)[1] for name in self.shapes if "resblocks." in name}
        out = self.shapes["BACKBONE.base.proj"][1]
        heads = self.method.backbone.size.heads * width // self.method.backbone.size.width
        return dataclasses.replace(
            self.method.backbone.size, width=width, depth=len(blocks), heads=heads, patch=patch, out=out
        )

    def variables(self):
        """The weights of the case in our trees."""
        like = jax.eval_shape(self.method.init, jax.random.key(0))
        cast = lambda t: self.dtype if jnp.issubdtype(t, jnp.floating) else t  # noqa: E731
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, cast(x.dtype)), like)
        loaded, report = layouts.import_state(self.layout, self.entries, like)
        assert set(report.used) | set(report.dropped) == set(self.entries)
        assert not report.kept, report.kept
        # What the network has no use for stays as it was.
        self.unused = {name: self.entries[name] for name in report.dropped}
        # Copies: memory that numpy shares cannot be given to the next state.
        return jax.tree.map(jnp.array, loaded)

    def export(self, params, batch_stats):
        """Trees of the method under the names and in the layout of PyTorch; what is of no use there is a copy."""
        tree = jax.tree.map(np.asarray, {"params": params, "batch_stats": batch_stats})
        exported = layouts.export_state(self.layout, tree)
        assert set(exported) == set(self.entries), "a strict loader wants every key"
        return exported

    def batch(self, key, rows=None):
        """The batch under a key of the case (``eval``, ``step0``); `rows`: only so many of it."""
        count, (height, width) = self.case["batch"], self.case["image_hw"]

        def images(name):
            fine = np.float32(0.5) * self.recipe.array(self.case["seed"], name, (count, 3, height, width))
            coarse = self.recipe.array(self.case["seed"], f"{name}/blocks", (count, 3, height // 32, width // 32))
            drawn = fine + np.repeat(np.repeat(coarse, 32, 2), 32, 3)
            return jnp.asarray(np.moveaxis(drawn, 1, -1), self.dtype)[:rows]

        made = {"images": {ours: images(f"{key}/{theirs}") for theirs, ours in MODALITIES.items()}}
        made["camera"] = jnp.asarray(self.case["camera"][:rows], jnp.int32)
        if "labels" in self.case:
            made["identity"] = jnp.asarray(self.case["labels"], jnp.int32)
        return made

    def without(self, batch, letters):
        """A batch in which the modalities of these letters are missing, as zeros."""
        gone = {LETTERS[letter] for letter in letters}
        images = {name: jnp.zeros_like(x) if name in gone else x for name, x in batch["images"].items()}
        return {**batch, "images": images}

    def compare(self, outputs):
        """Compares every stored number of this precision; one that nothing computes is a failure."""
        wide = self.dtype == jnp.float64
        for key, expected in self.golden.arrays.items():
            exact = expected.dtype.kind in "iu"
            if exact or key.endswith("@64") == wide:
                name = key.removesuffix("@64")
                assert name in outputs, f"nothing computes {key}"
                check(key, outputs[name], expected, self.case["tolerances"], self.dtype)

    def trunk(self, variables, batch):
        """What the trunk does, under the keys of the files, for every modality where one is stored."""
        params = variables["params"]["backbone"]
        network = self.method.backbone.clone(all_tokens=True)
        outputs = {}
        for theirs, ours in MODALITIES.items():
            images, side = batch["images"][ours], batch["camera"]
            tokens = network.apply({"params": params}, images, side)
            first = self.method.backbone.class_tokens
            alone = network.clone(side_rows=0).apply({"params": params}, images)
            found = {"tokens_image0": tokens[0, :, :48], "patch_mean": tokens[:, first:].mean(1)}
            for number, name in enumerate(("class", "shared")[:first]):
                found |= {name: tokens[:, number], f"{name}_without_camera": alone[:, number]}
            outputs |= {f"trunk/{theirs}/{name}": value for name, value in found.items()}
        images = batch["images"]["rgb"][:1]
        for key in self.golden.arrays:
            if match := re.fullmatch(r"(trunk/RGB/(?:ln_pre|block(\d+))_image0)(?:@64)?", key):
                outputs[match[1]] = after_block(network, params, images, batch["camera"][:1], match[2])[0, :, :32]
        return outputs

    def rates(self, params):
        """The learning rate of every trained parameter, in the order of the case."""
        options = optimizers.OptimizerOptions.of(self.method.config.optim)
        patterns = [optimizers.Group(pattern, frozen=True) for pattern in self.method.frozen]
        groups = optimizers.assign(options.groups(patterns), params)
        rate_of = lambda group: float(optimizers.rate(options, self.epoch_ends, group.lr_factor)(0))  # noqa: E731
        filled = jax.tree.map(lambda group, x: np.full(x.shape, rate_of(group)), groups, params)
        exported = self.export(filled, self.fresh_statistics)
        return np.array([exported[name].flat[0] for name in self.case["trained_parameters"]])

    def train(self, observe):
        """Takes the steps of the case with the program's own training step.

        Args:
          observe: (variables, batch) -> numbers of the forward pass by name, of which each step's are kept.

        Returns:
          What each step reports; and by the keys of the files: gradients, changes and running statistics; variables.
        """
        method = self.method

        def observed(variables, batch, key, step, memory):
            total, (terms, stats, memory) = method.loss(variables, batch, key, step, memory)
            return total, ({**terms, **observe(variables, batch)}, stats, memory)

        variables = self.variables()
        self.fresh_statistics = jax.tree.map(np.asarray, variables["batch_stats"])
        outputs, reports = {"rate_per_parameter": self.rates(variables["params"])}, []
        optimizer = observers.recording(method.optimizer(variables["params"], self.epoch_ends))
        state = states.create(variables, optimizer)
        del variables
        step = jax.jit(steps.train_step(observed, optimizer, seed=0), donate_argnums=0)
        trained = self.case["trained_parameters"]
        for number in range(self.case["steps"]):
            state, metrics = step(state, self.batch(f"step{number}"))
            reports.append(jax.tree.map(np.asarray, metrics))
            if number == 0:
                gradients = self.export(state.opt_state[1], state.batch_stats)
                outputs["gradnorm"] = np.array([norm(gradients[name]) for name in trained])
                outputs |= {f"grad/{name}": gradients[name].reshape(-1)[:512].copy() for name in trained}
            moved = {**self.export(state.params, state.batch_stats), **self.unused}
            for name in self.case["parameters_without_gradient"]:
                np.testing.assert_array_equal(moved[name], self.entries[name], err_msg=name)
            changes = {name: moved[name] - self.entries[name].astype(moved[name].dtype) for name in trained}
            outputs[f"delta{number + 1}_norm"] = np.array([norm(changes[name]) for name in trained])
            for name, change in changes.items():
                outputs[f"delta{number + 1}/{name}"] = change.reshape(-1)[:256].copy()
            for name in filter(observers.is_buffer, moved):
                outputs[f"bn{number + 1}/{name}"] = moved[name][:512].copy() if moved[name].ndim else moved[name]
        return reports, outputs, state.variables


def norm(array):
    return np.linalg.norm(np.asarray(array, np.float64))


def after_block(network, params, images, side, number):
    """Tokens [B, N, D] after a block, or after the layer norm before the first one (None)."""
    depth = 1 if number is None else int(number) + 1
    shorter = network.clone(size=dataclasses.replace(network.size, depth=depth))
    cut = {**params, "blocks": jax.tree.map(lambda x: x[:depth], params["blocks"])}
    seen = {}

    def watch(call, args, kwargs, context):
        made = call(*args, **kwargs)
        if context.method_name == "__call__" and context.module.name in ("norm_pre", "norm"):
            # What the last norm is given is what the last block makes.
            seen[context.module.name] = made if context.module.name == "norm_pre" else args[0]
        return made

    with nn.intercept_methods(watch):
        shorter.apply({"params": cut}, images, side)
    return seen["norm_pre" if number is None else "norm"]


def rates_of(config, epochs, factor):
    """Rates of `epochs` epochs from the first on, of a group of a config's optimiser."""
    options = optimizers.OptimizerOptions.of(config.optim)
    ends = np.arange(1, epochs + 1)
    rate = optimizers.rate(options, ends, factor)
    return np.array([float(rate(step)) for step in range(epochs)])
