"""Transfer in two stages: for the first epochs only some layers train, then all of them.

Reference: torchreid's ``fixbase_epoch`` and ``open_layers``. A method that offers it also has the closed layers'
batch norms use their running statistics in the first stage (`mmreid_jax.methods.ieee`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmreid_jax.errors import UserError
from mmreid_jax.training import optimizers


class StagedState(NamedTuple):
    """State of `build`: steps done, and the states of the optimisers of both kinds of layers."""

    steps: jax.Array
    first: Any
    later: Any


def steps_of(epochs: int, epoch_ends: np.ndarray) -> int:
    """Number of steps in the first `epochs` epochs of a run whose epochs end at `epoch_ends` [epochs]."""
    return int(epoch_ends[min(epochs, len(epoch_ends)) - 1]) if epochs else 0


def build(
    options: optimizers.OptimizerOptions | Mapping[str, Any],
    params: Any,
    epoch_ends: np.ndarray,
    groups: Sequence[optimizers.Group] = (),
    *,
    first: Sequence[str],
    epochs: int,
) -> optax.GradientTransformation:
    """As `optimizers.build`, with all but some layers closed for the first epochs.

    While a layer is closed it is as if it had no gradient: no decay, no momentum, and its optimiser's state starts when
    it opens; the learning rate follows the schedule of the run all the same.

    Args:
      options: see `optimizers.build`.
      params: likewise.
      epoch_ends: likewise.
      groups: likewise.
      first: top-level names of the layers that train from the beginning.
      epochs: number of epochs in which they train alone.

    Raises:
      UserError: see `optimizers.build`; or the gradient is to be clipped, which two optimisers cannot do together.
    """
    options = optimizers.OptimizerOptions.of(options)
    if options.clip_norm:
        raise UserError("config.optim.clip_norm does not go with config.train.fixbase_epochs; set one of them to 0")
    names = "|".join(map(re.escape, first))
    closed, opened = (optimizers.Group(f"^(?{kind}({names})/)", frozen=True) for kind in ("!", "="))
    at_once = optimizers.build(options, params, epoch_ends, [closed, *groups])
    later = optimizers.build(options, params, epoch_ends, [opened, *groups])
    opens = steps_of(epochs, epoch_ends)

    def init(params: Any) -> StagedState:
        return StagedState(jnp.zeros((), jnp.int32), at_once.init(params), later.init(params))

    def update(updates: Any, state: StagedState, params: Any = None) -> tuple[Any, StagedState]:
        of_first, new_first = at_once.update(updates, state.first, params)
        of_later, new_later = later.update(updates, state.later, params)
        waiting = state.steps < opens
        # The last member of the state counts the steps for the schedule, and goes on counting.
        (*held, _), (*moved, counted) = state.later, new_later
        held = jax.tree.map(lambda old, new: jnp.where(waiting, old, new), held, moved)
        total = jax.tree.map(lambda a, b: a + jnp.where(waiting, jnp.zeros_like(b), b), of_first, of_later)
        return total, StagedState(optax.safe_increment(state.steps), new_first, (*held, counted))

    return optax.GradientTransformation(init, update)
