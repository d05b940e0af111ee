"""Layers that open later train as if the run had begun for them then, at the rate of the run."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.training import optimizers, staged

ENDS = np.array([2, 4, 6])
OPTIONS = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "schedule": "multi_step"}


def params():
    return {"body": {"kernel": np.ones(3), "idle": np.ones(2)}, "head": {"kernel": np.full(2, 2.0)}}


def gradients(step):
    return jax.tree.map(lambda x: np.sin(step + np.arange(x.size, dtype=np.float64)), params())


def test_a_layer_that_opens_later_follows_pytorch(x64):
    """Closed layers have no gradient in PyTorch: they are skipped, and their momentum begins when they open."""
    options = optimizers.OptimizerOptions(**OPTIONS, milestones=(2,))
    frozen = [optimizers.Group("^body/idle$", frozen=True)]
    tx = staged.build(options, params(), ENDS, frozen, first=("head",), epochs=1)
    update = jax.jit(tx.update)
    current, state = params(), tx.init(params())
    wanted, buffers = params(), {}
    for step in range(6):
        updates, state = update(gradients(step), state, current)
        current = optax.apply_updates(current, updates)
        rate = 0.1 * (0.1 if step >= 4 else 1.0)
        for layer, name in (("head", "kernel"), ("body", "kernel")):
            if layer == "body" and step < 2:
                continue
            g = gradients(step)[layer][name] + 0.01 * wanted[layer][name]
            buffers[layer] = 0.9 * buffers[layer] + g if layer in buffers else g
            wanted[layer][name] = wanted[layer][name] - rate * (g + 0.9 * buffers[layer])
        for a, b in zip(*map(jax.tree.leaves, (current, wanted)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_the_count_of_adam_begins_when_a_layer_opens(x64):
    options = optimizers.OptimizerOptions(name="adam", lr=0.1)
    tx = staged.build(options, params(), ENDS, first=("head",), epochs=1)
    state = tx.init(params())
    for step in range(2):
        _, state = tx.update(gradients(step), state, params())
    opened, _ = tx.update(gradients(2), state, params())
    plain = optimizers.build(options, params(), ENDS)
    fresh, _ = plain.update(gradients(2), plain.init(params()), params())
    np.testing.assert_allclose(opened["body"]["kernel"], fresh["body"]["kernel"], rtol=1e-12)


def test_clipping_and_stages_exclude_each_other():
    with pytest.raises(UserError, match="clip_norm"):
        staged.build({"clip_norm": 1.0}, params(), ENDS, first=("head",), epochs=1)


@pytest.mark.parametrize(("epochs", "steps"), [(0, 0), (1, 2), (3, 6), (9, 6)])
def test_steps_of_the_first_epochs(epochs, steps):
    assert staged.steps_of(epochs, ENDS) == steps
