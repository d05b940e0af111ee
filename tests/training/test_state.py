"""The training state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmreid_jax.training import state


def test_a_new_state_stands_before_its_first_step():
    variables = {"params": {"w": jnp.ones(3)}, "batch_stats": {"mean": jnp.zeros(2)}}
    made = state.create(variables, optax.sgd(0.1, momentum=0.9), {"weight": np.float32(2)})
    assert (int(made.step), made.step.dtype) == (0, jnp.int32)
    jax.tree.map(np.testing.assert_array_equal, made.variables, variables)
    assert made.memory == {"weight": 2}
    assert state.create({"params": {}}, optax.sgd(0.1)).variables == {"params": {}, "batch_stats": {}}


def test_it_is_one_tree():
    made = state.create({"params": {"w": jnp.ones(3)}}, optax.sgd(0.1))
    moved = jax.tree.map(lambda leaf: leaf + 1, made)
    assert int(moved.step) == 1
    np.testing.assert_array_equal(moved.params["w"], 2)
