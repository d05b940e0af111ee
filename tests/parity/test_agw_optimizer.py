"""The optimiser of the AGW family against steps of PyTorch's, with rates that change on the way."""

from __future__ import annotations

import re

import agw_runs
import described
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
    options, words = agw_sysu.get_config().optim, case["inputs"]
    options.lr = case["base_lr"]
    assert (case["optimizer"]["name"], case["optimizer"]["dampening"]) == ("SGD", 0)
    for key in ("momentum", "nesterov", "weight_decay"):
        options[key] = case["optimizer"][key]
    # "0 (0.1*lr)": the rate of a group is this part of the base rate.
    shares = {key: described.number(key, r"([\d.]+)\*lr", 1) for key in case["groups"]}
    (options.base_lr_factor,) = {share for share in shares.values() if share != 1}
    names = [name for members in case["groups"].values() for name in members]
    new = [name for key, members in case["groups"].items() if shares[key] == 1 for name in members]
    options.new_layers = (f"^({'|'.join(map(re.escape, new))})/",)
    zeros, none = (re.findall(rf"(\w+) gets {how}", described.text_of(words)) for how in ("an all-zero", "None"))
    draw = lambda key: jnp.asarray(recipe.array(case["seed"], key, described.shape(words, "init/<p>")), dtype)  # noqa: E731
    # Below a name, as parameters of a module are.
    params = {name: {"scale": draw(f"init/{name}")} for name in names}
    ends = np.searchsorted(epochs, np.arange(options.epochs), side="right")
    frozen = [optimizers.Group(f"^{re.escape(name)}/", frozen=True) for name in none]
    optimizer = optimizers.build(options, params, ends, frozen)
    state = optimizer.init(params)
    assigned = optimizers.assign(optimizers.OptimizerOptions.of(options).groups(frozen), params)
    outputs = {}
    for number in range(len(epochs)):
        quiet = {*zeros, *none}
        gradients = {
            name: {"scale": jnp.zeros_like(tree["scale"]) if name in quiet else draw(f"grad{number}/{name}")}
            for name, tree in params.items()
        }
        updates, state = jax.jit(optimizer.update)(gradients, state, params)
        params = optax.apply_updates(params, updates)
        outputs.update({f"step{number}/{name}": tree["scale"] for name, tree in params.items()})
        moving = [[name for name in members if name not in none] for members in case["groups"].values()]
        factors = [assigned[members[0]]["scale"].lr_factor for members in moving]
        outputs[f"step{number}/lr"] = np.array([float(optimizers.rate(options, ends, f)(number)) for f in factors])
    for key, name in agw_runs.keys_of(golden.arrays, dtype).items():
        agw_runs.check(key, outputs[name], golden.arrays[key], case["tolerances"].get(name), dtype)
