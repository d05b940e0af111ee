"""torchreid's learning rates by epoch and group, and its optimisers step by step, against the authors' numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmreid_jax.testing import goldens
from mmreid_jax.training import optimizers

GOLDENS = [
    golden
    for golden in map(goldens.load, goldens.cases("ieee"))
    if any(isinstance(case, dict) and {"scheduler", "optim"} & set(case) for case in golden.json.values())
]
CASES = [(golden, name, case) for golden in GOLDENS for name, case in golden.json.items()]
RATES = [pytest.param(*case, id=case[1]) for case in CASES if "scheduler" in case[2]]
TOYS = [pytest.param(*case, id=case[1]) for case in CASES if "scheduler" not in case[2]]


def options_of(optimizer, scheduler=None):
    """Options of torchreid by the names of ours."""
    scheduler = scheduler or {}
    return optimizers.OptimizerOptions(
        name=optimizer["optim"],
        lr=optimizer["lr"],
        weight_decay=optimizer["weight_decay"],
        momentum=optimizer["momentum"],
        nesterov=True,  # whatever its option says
        beta1=optimizer.get("adam_beta1", 0.9),
        beta2=optimizer.get("adam_beta2", 0.999),
        alpha=optimizer.get("rmsprop_alpha", 0.99),
        new_layers=tuple(f"^{layer}/" for layer in optimizer.get("new_layers", ())),
        base_lr_factor=optimizer.get("base_lr_mult", 0.1),
        schedule=scheduler.get("lr_scheduler", "constant"),
        milestones=tuple(scheduler.get("stepsize", ())),
        decay=scheduler.get("gamma", 0.1),
        period=scheduler.get("max_epoch", 0) if scheduler.get("lr_scheduler") == "cosine" else 0,
    )


def test_every_array_has_a_case():
    for golden in GOLDENS:
        assert set(golden.arrays) == {f"{name}@64" for name in golden.json}


@pytest.mark.parametrize(("golden", "name", "case"), RATES)
class TestRates:
    __test__ = bool(RATES)

    def test_rates_of_the_steps_by_group(self, golden, name, case, x64):
        """The rates that the steps of a run see, epochs of unequal length; trained layers come before new ones."""
        expected = golden.arrays[f"{name}@64"]
        epochs = case["epochs"]
        assert expected.shape == (epochs, case["groups"])
        options = options_of(case["optimizer"], case["scheduler"])
        new = case["optimizer"].get("new_layers", []) if case["optimizer"].get("staged_lr") else []
        params = {layer: {"kernel": jnp.zeros(2), "bias": jnp.zeros(2)} for layer in ["backbone", *new]}
        assigned = optimizers.assign(options.groups(), params)
        factors = [assigned[layer]["bias"].lr_factor for layer in ["backbone", *new[:1]]]
        assert {group.lr_factor for group in jax.tree.leaves(assigned)} == set(factors)
        lengths = 1 + np.arange(epochs) % 3
        for column, factor in zip(expected.T, factors, strict=True):
            rate = optimizers.rate(options, np.cumsum(lengths), factor)
            found = np.asarray(rate(np.arange(lengths.sum())))
            # The cosine of the reference is a recursion, whose rounding adds up.
            np.testing.assert_allclose(found, np.repeat(column, lengths), rtol=1e-9, atol=1e-12 * column.max())


def start_of(seed, first):
    """Weight [out, in] and bias [out] before the first step, after which all their values are `first`.

    The file tells out * in + out alone; of the sizes that this allows, those are right whose values are nearest.
    """
    array = goldens.recipe().array
    sizes = [(rows, len(first) // rows - 1) for rows in range(1, len(first)) if len(first) % rows == 0]
    starts = [(array(seed, "opt/w", size, np.float64), array(seed, "opt/b", size[:1], np.float64)) for size in sizes]
    return min(starts, key=lambda start: np.abs(flat(*start) - first).max())


def flat(weight, bias):
    return np.concatenate([np.ravel(weight), bias])


@pytest.mark.parametrize(("golden", "name", "case"), TOYS)
class TestTrajectories:
    __test__ = bool(TOYS)

    def test_every_step(self, golden, name, case, x64):
        array, seed = goldens.recipe().array, case["seed"]
        expected = golden.arrays[f"{name}@64"]
        weight, bias = start_of(seed, expected[0])
        params = {"weight": jnp.asarray(weight), "bias": jnp.asarray(bias)}
        optimizer = optimizers.build(options_of(case), params, np.array([len(expected)]))
        state = optimizer.init(params)
        update = jax.jit(optimizer.update)
        # The reference's RAdam casts everything to float32, which the stored numbers show.
        tolerance = 1e-6 if np.array_equal(expected, expected.astype(np.float32)) else 1e-13
        for step, row in enumerate(expected):
            gradients = {
                "weight": array(seed, f"opt/gw{step}", weight.shape, np.float64),
                "bias": array(seed, f"opt/gb{step}", bias.shape, np.float64),
            }
            updates, state = update(gradients, state, params)
            params = optax.apply_updates(params, updates)
            goldens.close(flat(params["weight"], params["bias"]), row, tolerance, f"{name}, step {step}")
