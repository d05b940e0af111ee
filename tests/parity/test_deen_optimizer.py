"""DEEN's optimiser against steps of PyTorch's while its schedule moves, and the rates of all epochs."""

from __future__ import annotations

import re

import agw_runs
import deen_kinds
import described
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import deen_sysu
from mmreid_jax.testing import goldens
from mmreid_jax.training import optimizers, schedules

CASES = deen_kinds.of_kind("optimizer")


@pytest.mark.parametrize("golden", CASES, ids=lambda golden: golden.name)
def test_rates(golden):
    """Of every group in every epoch of the released experiment."""
    options = deen_sysu.get_config().optim
    expected, timetable = golden.arrays["rates"], optimizers.OptimizerOptions.of(options).timetable
    assert len(expected) == options.epochs
    factors = [described.number(key, r"([\d.]+)\*lr", 1) for key in golden.json["groups"]]
    assert set(factors) == {options.base_lr_factor, 1.0}
    rates = [schedules.table(timetable, golden.json["base_lr"], len(expected), factor) for factor in factors]
    np.testing.assert_allclose(np.stack(rates, axis=1), expected, rtol=golden.json["tolerances"]["rates"]["rtol"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("golden", CASES, ids=lambda golden: golden.name)
def test_steps(golden, dtype, x64):
    case, recipe = golden.json, goldens.recipe()
    options, words, epochs = deen_sysu.get_config().optim, case["inputs"], case["epochs"]
    options.lr = case["base_lr"]
    assert (case["optimizer"]["name"], case["optimizer"]["dampening"]) == ("SGD", 0)
    for key in ("momentum", "nesterov", "weight_decay"):
        options[key] = case["optimizer"][key]
    names = [name for members in case["groups"].values() for name in members]
    shares = {key: described.number(key, r"([\d.]+)\*lr", 1) for key in case["groups"]}
    new = [name for key, members in case["groups"].items() if shares[key] == 1 for name in members]
    options.new_layers = (f"^({'|'.join(map(re.escape, new))})/",)
    said = described.text_of(words)
    zeros, none = (set(re.findall(rf"(\w+)(?: and (\w+))? gets? {how}", said)) for how in ("zeros", "None"))
    zeros, none = ({name for pair in pairs for name in pair if name} for pairs in (zeros, none))
    draw = lambda key, kind: jnp.asarray(recipe.array(case["seed"], key, described.shape(words, kind)), dtype)  # noqa: E731
    # Below a name, as parameters of a module are.
    params = {name: {"scale": draw(f"init/{name}", "init/<p>")} for name in names}
    ends = np.searchsorted(epochs, np.arange(options.epochs), side="right")
    frozen = [optimizers.Group(f"^{re.escape(name)}/", frozen=True) for name in sorted(none)]
    optimizer = optimizers.build(options, params, ends, frozen)
    state, update, outputs = optimizer.init(params), jax.jit(optimizer.update), {"rates": golden.arrays["rates"]}
    for number in range(len(epochs)):
        gradients = {
            name: {
                "scale": jnp.zeros_like(tree["scale"])
                if name in zeros | none
                else draw(f"grad{number}/{name}", "gradI/<p>")
            }
            for name, tree in params.items()
        }
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        outputs.update({f"s{number}/{name}": tree["scale"] for name, tree in params.items()})
    for key, name in agw_runs.keys_of(golden.arrays, dtype).items():
        if name != "rates":
            agw_runs.check(key, outputs[name], golden.arrays[key], case["tolerances"].get(name), dtype)
