"""Cases of the AGW family set up with the program's own method and checkpoint reader, and how they are compared."""

from __future__ import annotations

import math

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

MODALITIES = {"visible": "rgb", "thermal": "nir"}
# What is stored in float64 agrees to the first part of the largest value, what is rounded to float32 to the second.
SCALAR64, FLOAT64 = 1e-9, 1e-6
# A file's limits are ten times the noise of one float32 run. A gradient's noise comes from the few ReLUs whose sign
# float32 turns over, another set on every machine; as for the plain backbone the Euclidean norm of its error may be
# this part of its own. float64 is the judge.
GRADIENT_FLOAT32, NORM_FLOAT32, LATER_FLOAT32 = 0.05, 1e-2, 1e-3


def keys_of(arrays, dtype):
    """Key in a file -> name of the quantity, of all that a run in this precision is compared with."""
    wide = jnp.dtype(dtype) == jnp.float64
    found = {}
    for key in arrays:
        name = key.removesuffix("@64")
        if key != name and not wide:
            continue
        if wide and key == name and f"{key}@64" in arrays:
            continue
        found[key] = name
    return found


def check(key, actual, expected, given, dtype, before=None):
    """Asserts that an array differs from the stored one by no more than its tolerance.

    Args:
      key: of the file.
      actual: computed here.
      expected: stored.
      given: the file's limits for a float32 run, ``atol`` or ``rel_l2_tol``; None: the quantity is exact.
      dtype: of the run.
      before: of a parameter after some steps: what it was before them.
    """
    actual = np.asarray(actual)
    assert actual.shape == expected.shape, f"{key}: {actual.shape}, {expected.shape}"
    if expected.dtype.kind in "iu":
        np.testing.assert_array_equal(actual, expected, err_msg=key)
        return
    expected = expected.astype(np.float64)
    error = actual.astype(np.float64) - expected
    far, scale = float(np.abs(error).max()), float(np.abs(expected).max())
    name = key.removesuffix("@64")
    # A float64 run is judged by float64 numbers; where a file has none, by its limits for the float32 ones.
    if jnp.dtype(dtype) == jnp.float64 and (key != name or given is None):
        allowed = scale * (SCALAR64 if expected.ndim == 0 else FLOAT64)
        assert far <= allowed, f"{key}: error {far:.3g}, allowed {allowed:.3g}, scale {scale:.3g}"
        return
    given = given or {"atol": 0.0, "rel_l2_tol": 1e-6}
    norm, whole = np.linalg.norm(error), np.linalg.norm(expected)
    allowed = given["rel_l2_tol"] * whole
    if name.startswith("grad/"):
        allowed = max(allowed, GRADIENT_FLOAT32 * whole)
    elif name.startswith("gradnorm/"):
        allowed = max(allowed, NORM_FLOAT32 * whole)
    elif before is not None:
        # A parameter after a step may be off by what the step may be off by, and by its own rounding.
        step = np.linalg.norm(expected - before)
        allowed = max(allowed, GRADIENT_FLOAT32 * step + 1e-6 * scale * math.sqrt(expected.size))
    elif name.startswith(("after", "step1", "step2")):
        allowed = max(allowed, LATER_FLOAT32 * whole)
    assert far <= given["atol"] or norm <= allowed, f"{key}: norm of the error {norm:.3g}, allowed {allowed:.3g}"


def first(value):
    """The stored slice of an array."""
    return np.asarray(value).reshape(-1)[:512].copy()


class Run:
    """A case with a network, set up in one precision.

    Args:
      path: of the case.
      dtype: of parameters and images.
      config: the experiment that the case belongs to; what the case changes is changed here.
      layout: name of the method's layout of the authors' checkpoints.
    """

    def __init__(self, path, dtype, config, layout="agw"):
        self.golden = goldens.load(path)
        self.case = self.golden.json
        self.dtype = jnp.dtype(dtype)
        self.recipe = goldens.recipe()
        # Cases that take no step say nothing of them.
        epoch = self.case.get("epoch_for_lr", 0)
        config.data.image_size = tuple(self.case["image_hw"])
        # The same numbers in less memory, which large images in float64 need.
        config.model.remat = True
        config.optim.lr = self.case.get("base_lr", config.optim.lr)
        options = self.case.get("optimizer")
        if isinstance(options, dict):
            assert (options["name"], options["dampening"]) == ("SGD", 0)
            for key in ("momentum", "nesterov", "weight_decay"):
                config.optim[key] = options[key]
        self.method = base.build(config, base.DataFacts(self.case["n_class"], 4, 1, tuple(MODALITIES.values())))
        # Epochs without steps, up to the one whose rates the steps take.
        self.epoch_ends = np.array([0] * epoch + [1000] * (config.optim.epochs - epoch))
        self.layout = self.method.convert_layouts()[layout]
        listed = self.case["state_dict"]
        if isinstance(listed, str):
            # "as in <another file>"
            listed = goldens.load(path.with_name(listed.split()[-1])).json["state_dict"]
        self.entries = dict(self.recipe.state_dict(self.case["seed"], listed))
        for suffix, factor in self.case["weight_scale"]:
            for name in self.entries:
                if name.endswith(suffix):
                    self.entries[name] = self.entries[name] * np.float32(factor)

    def variables(self):
        """The weights of the case in our trees, and the names of those that they have no use for."""
        like = jax.eval_shape(self.method.init, jax.random.key(0))
        cast = lambda t: self.dtype if jnp.issubdtype(t, jnp.floating) else t  # noqa: E731
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, cast(x.dtype)), like)
        loaded, report = layouts.import_state(self.layout, self.entries, like)
        assert set(report.used) | set(report.dropped) == set(self.entries)
        # Copies: memory that numpy shares cannot be given to the next state.
        return jax.tree.map(jnp.array, loaded), set(report.dropped)

    def export(self, params, batch_stats):
        """Trees of the method under the names and in the layout of PyTorch."""
        tree = jax.tree.map(np.asarray, {"params": params, "batch_stats": batch_stats})
        exported = layouts.export_state(self.layout, tree)
        assert set(exported) == set(self.entries), "a strict loader wants every key"
        return exported

    def images(self, key):
        """The images under a key, NHWC."""
        sizes = {len(labels) for labels in self.case["labels_per_modality"]}
        assert len(sizes) == 1
        drawn = self.recipe.array(self.case["seed"], key, (sizes.pop(), 3, *self.case["image_hw"]))
        return jnp.asarray(np.moveaxis(drawn, 1, -1), self.dtype)

    def compare(self, outputs, wanted):
        """Compares every stored number that `wanted` says yes to; one that nothing computes is a failure."""
        for key, name in keys_of(self.golden.arrays, self.dtype).items():
            if not wanted(name):
                continue
            assert name in outputs, f"nothing computes {key}"
            before, parameter = None, name.split("/", 1)[-1]
            if name.startswith("after") and not observers.is_buffer(name) and parameter in self.entries:
                before = first(self.entries[parameter])
            given = self.case["tolerances"].get(name)
            check(key, outputs[name], self.golden.arrays[key], given, self.dtype, before)

    def rates(self, params):
        """Learning rates of the authors' groups: trunk, neck, classifier."""
        options = optimizers.OptimizerOptions.of(self.method.config.optim)
        groups = optimizers.assign(options.groups(), params)
        of_group = (groups["backbone"], groups["bottleneck"], groups["classifier"])
        factors = [{group.lr_factor for group in jax.tree.leaves(tree)} for tree in of_group]
        assert all(len(found) == 1 for found in factors)
        return np.array([float(optimizers.rate(options, self.epoch_ends, found.pop())(0)) for found in factors])

    def train(self, batches, observe):
        """Takes the steps of a case with the program's own training step.

        Args:
          batches: of the steps.
          observe: (variables, batch) -> numbers of the forward pass that are compared, by name.

        Returns:
          What each step reports; gradients of the first one and parameters after each under the keys of a file; and
          the variables at the end.
        """
        method = self.method

        def observed(variables, batch, key, step, memory):
            total, (terms, stats, memory) = method.loss(variables, batch, key, step, memory)
            return total, ({**terms, **observe(variables, batch)}, stats, memory)

        variables, dead = self.variables()
        optimizer = observers.recording(method.optimizer(variables["params"], self.epoch_ends))
        state = states.create(variables, optimizer)
        outputs, reports = {"lr": self.rates(variables["params"])}, []
        del variables
        step = jax.jit(steps.train_step(observed, optimizer, seed=0), donate_argnums=0)
        for number, batch in enumerate(batches, start=1):
            state, metrics = step(state, batch)
            reports.append(jax.tree.map(np.asarray, metrics))
            if number == 1:
                for name, value in self.export(state.opt_state[1], state.batch_stats).items():
                    outputs[f"grad/{name}"] = first(value)
                    outputs[f"gradnorm/{name}"] = np.linalg.norm(value.astype(np.float64))
            exported = self.export(state.params, state.batch_stats)
            for name, value in exported.items():
                # Running statistics are stored whole.
                outputs[f"after{number}/{name}"] = value.copy() if observers.is_buffer(name) else first(value)
        for name in (*self.case.get("untouched_parameters", ()), *self.case.get("untouched_buffers", ())):
            assert name in dead or np.array_equal(exported[name], self.entries[name]), f"{name} moved"
        return reports, outputs, state.variables
