"""The training state: everything that changes from step to step, as one pytree."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """What a step reads and returns, and what a checkpoint holds.

    Attributes:
      step: int32 scalar, number of steps done; with the seed it determines all randomness on the device.
      params: trained parameters, nested dicts of arrays.
      batch_stats: running statistics of batch normalisation.
      opt_state: state of the optimiser.
      memory: what a method carries from step to step beside its parameters.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    memory: Any

    @property
    def variables(self) -> dict[str, Any]:
        """Parameters and statistics in the form that networks take."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create(variables: dict[str, Any], optimizer: optax.GradientTransformation, memory: Any = None) -> TrainState:
    """The state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(variables["params"]),
        memory={} if memory is None else memory,
    )
