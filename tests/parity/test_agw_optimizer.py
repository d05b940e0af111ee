"""The optimiser of the AGW family against steps of PyTorch's, with rates that change on the way."""

from __future__ import annotations

import agw_runs
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import agw_sysu
from mmreid_jax.testing import goldens
from mmreid_jax.training import optimizers

CASES = [path for path in goldens.cases("agw") if {"epochs", "groups"} <= goldens.load(path).json.keys()]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path, dtype, x64):
    golden, recipe = goldens.load(path), goldens.recipe()
    case, epochs = golden.json, golden.json["epochs"]
    options = agw_sysu.get_config().optim
    options.lr = case["base_lr"]
    assert case["optimizer"].pop("dampening") == 0
    assert {key: options[key] for key in case["optimizer"] if key != "name"} == {
        key: value for key, value in case["optimizer"].items() if key != "name"
    }
    names = [name for members in case["groups"].values() for name in members]
    draw = lambda key: jnp.asarray(recipe.array(case["seed"], key, (32,)), dtype)  # noqa: E731
    # Below a name, as parameters of a module are.
    params = {name: {"scale": draw(f"init/{name}")} for name in names}
    ends = np.searchsorted(epochs, np.arange(options.epochs), side="right")
    frozen = optimizers.Group("^no_grad/", frozen=True)
    optimizer = optimizers.build(options, params, ends, [frozen])
    state = optimizer.init(params)
    assigned = optimizers.assign(optimizers.Options.of(options).groups([frozen]), params)
    outputs = {}
    for number in range(len(epochs)):
        quiet = {"zero_grad", "no_grad"}
        gradients = {
            name: {"scale": jnp.zeros_like(tree["scale"]) if name in quiet else draw(f"grad{number}/{name}")}
            for name, tree in params.items()
        }
        updates, state = jax.jit(optimizer.update)(gradients, state, params)
        params = optax.apply_updates(params, updates)
        outputs.update({f"step{number}/{name}": tree["scale"] for name, tree in params.items()})
        factors = [assigned[members[0]]["scale"].lr_factor for members in case["groups"].values()]
        outputs[f"step{number}/lr"] = np.array([float(optimizers.rate(options, ends, f)(number)) for f in factors])
    for key, name in agw_runs.keys_of(golden.arrays, dtype).items():
        agw_runs.check(key, outputs[name], golden.arrays[key], case["tolerances"].get(name), dtype)
