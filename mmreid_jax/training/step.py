"""The jitted steps: one function for training and test-time training, one for embedding, both data-parallel.

A step is written for the global batch. `data_parallel` runs it over all devices by sharding the leading axis of the
batch; XLA inserts the collectives, so that batch statistics, hard mining and every loss see the whole batch, and the
result on many devices is the result on one. (JAX's own documentation points from `pmap` to this form.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmreid_jax.errors import UserError
from mmreid_jax.training import augment, compilation, inputs
from mmreid_jax.training import devices as jax_devices
from mmreid_jax.training.state import TrainState

Array = jax.Array
LossFunction = Callable[[Any, inputs.Batch, Array, Array, Any], tuple[Array, tuple[dict[str, Array], Any, Any]]]
Step = Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, dict[str, Array]]]
Steps = Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, list[dict[str, Array]]]]
HOST_ONLY = ("index", "valid")
"""Columns of a batch that no network reads."""


def train_step(
    loss: LossFunction,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    normalization: inputs.Normalization | None = None,
) -> Step:
    """Builds the pure step (state, batch) -> (state, metrics).

    Args:
      loss: `Method.loss`, or `Method.adapt_loss` for test-time training.
      optimizer: from `Method.optimizer`.
      seed: of the run; the key of a step is fold_in(seed, step), whatever happened before.
      normalization: of uint8 images.

    Returns:
      The step. Its metrics hold ``loss``, every term of the method by name, and the norms of gradients, parameters and
      updates.
    """
    normalization = normalization or inputs.Normalization()

    def step(state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        erase_key, loss_key = jax.random.split(key)
        prepared = inputs.prepare(batch, normalization, erase_key)

        def objective(params: Any) -> tuple[Array, tuple[dict[str, Array], Any, Any]]:
            variables = {"params": params, "batch_stats": state.batch_stats}
            return loss(variables, prepared, loss_key, state.step, state.memory)

        (total, (terms, batch_stats, memory)), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "loss": total,
            **terms,
            "norm_gradient": optax.tree.norm(grads),
            "norm_parameter": optax.tree.norm(params),
            "norm_update": optax.tree.norm(updates),
        }
        new_state = TrainState(state.step + 1, params, batch_stats, opt_state, memory)
        return new_state, metrics

    return step


def several(step: Step) -> Steps:
    """Builds (state, batches [K, B, ...]) -> (state, the metrics of each step): K steps in one program."""

    def run(state: TrainState, batches: Mapping[str, Any]) -> tuple[TrainState, list[dict[str, Array]]]:
        state, metrics = jax.lax.scan(step, state, batches)
        # Taken apart here: on the host every number would be a program of its own.
        count = len(metrics["loss"])
        return state, [{name: values[i] for name, values in metrics.items()} for i in range(count)]

    return run


def embed_step(
    embed: Callable[[Any, inputs.Batch], dict[str, Array]],
    normalization: inputs.Normalization | None = None,
    absent: Sequence[str] = (),
) -> Callable[[Any, Mapping[str, Any]], dict[str, Array]]:
    """Builds the pure function (variables, batch) -> features by name, each [B, D].

    Args:
      embed: `Method.embed`.
      normalization: of uint8 images.
      absent: modalities that the network does not get to see.
    """
    normalization = normalization or inputs.Normalization()

    def run(variables: Any, batch: Mapping[str, Any]) -> dict[str, Array]:
        return embed(variables, inputs.prepare(batch, normalization, absent=absent))

    return run


class Parallel:
    """Data parallelism over a mesh with the single axis ``data``.

    Attributes:
      mesh: of the devices used.
      everywhere: sharding of what every device holds whole (state).
      split: sharding of the leading axis (batch).
      stacked: sharding of the second axis, of batches one upon the other.
    """

    def __init__(self, devices: Sequence[Any] | None = None) -> None:
        """Uses `devices`, by default all devices of all processes."""
        # Mesh(...) makes automatic axes; jax.make_mesh would make explicit ones, which refuse f @ f.T on sharded rows.
        self.mesh = Mesh(np.array(jax_devices.available() if devices is None else devices), ("data",))
        self.everywhere = NamedSharding(self.mesh, PartitionSpec())
        self.split = NamedSharding(self.mesh, PartitionSpec("data"))
        self.stacked = NamedSharding(self.mesh, PartitionSpec(None, "data"))

    @property
    def size(self) -> int:
        """Number of devices."""
        return self.mesh.size

    def check_batch(self, batch_size: int) -> None:
        """Raises a `UserError` where `batch_size` cannot be spread evenly."""
        if batch_size % self.size:
            raise UserError(
                f"a batch of {batch_size} cannot be spread over {self.size} devices; choose a multiple of {self.size} "
                f"or run on fewer devices (CUDA_VISIBLE_DEVICES)"
            )

    def jit_train(self, step: Callable[..., Any], stacked: bool = False) -> Callable[..., Any]:
        """Compiles a training step, or `several` of stacked batches; the state given is consumed (memory is reused)."""
        batch = self.stacked if stacked else self.split
        return self._jit(step, in_shardings=(self.everywhere, batch), out_shardings=self.everywhere, donate_argnums=0)

    def jit_steps(self, step: Step) -> Callable[..., tuple[TrainState, list[dict[str, Array]]]]:
        """Compiles (state, batches of the host, images on the devices) -> (state, metrics of each step).

        One batch goes through the step alone, several through one program; each number of them is another program. The
        state is consumed.
        """
        one, many = self.jit_train(step), self.jit_train(several(step), stacked=True)

        def run(
            state: TrainState, batches: Sequence[Mapping[str, Any]], held: augment.Held | None = None
        ) -> tuple[TrainState, list[dict[str, Array]]]:
            if len(batches) == 1:
                state, metrics = one(state, self.place_batch(batches[0], held))
                return state, [metrics]
            return many(state, self.place_batches(batches, held))

        return run

    def jit_embed(self, embed: Callable[..., Any]) -> Callable[..., Any]:
        """Compiles (variables, batch) -> features; the features come back whole on every device."""
        return self._jit(embed, in_shardings=(self.everywhere, self.split), out_shardings=self.everywhere)

    @staticmethod
    def _jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        return jax.jit(function, compiler_options=compilation.options(), **options)

    def place_state(self, state: Any) -> Any:
        """Copies a pytree to every device."""
        return jax.device_put(state, self.everywhere)

    def place_batch(
        self, batch: Mapping[str, Any], held: augment.Held | None = None, keep: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Spreads this process's part of a batch of numpy arrays over its devices: the global batch.

        Args:
          batch: see `mmreid_jax.data.pipeline`.
          held: images on the devices; those that the batch names are put into it, by a small program of their own.
            A network is then compiled once for all tables, and is the very program that takes the host's images:
            compiled together with what makes them, their normalisation would be rounded differently.
          keep: columns among HOST_ONLY that are wanted.
        """
        placed = self._place(batch, self.split, keep)
        return placed if held is None else self._gather(placed, held)

    def place_batches(self, batches: Sequence[Mapping[str, Any]], held: augment.Held | None = None) -> dict[str, Any]:
        """The same of K batches one upon the other, [K, B, ...]."""
        placed = self._place(jax.tree.map(lambda *x: np.stack(x), *batches), self.stacked, ())
        return placed if held is None else self._gather_stacked(placed, held)

    def _place(self, batch: Mapping[str, Any], sharding: NamedSharding, keep: Sequence[str]) -> dict[str, Any]:
        wanted = {name: value for name, value in batch.items() if name not in HOST_ONLY or name in keep}
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), wanted)

    @functools.cached_property
    def _gather(self) -> Callable[..., dict[str, Any]]:
        return self._jit(augment.gather, out_shardings=self.split)

    @functools.cached_property
    def _gather_stacked(self) -> Callable[..., dict[str, Any]]:
        return self._jit(jax.vmap(augment.gather, in_axes=(0, None)), out_shardings=self.stacked)


def fetch(tree: Any) -> Any:
    """Device arrays -> numpy arrays (waits for the device)."""
    return jax.tree.map(lambda x: np.asarray(jax.device_get(x)), tree)


def abstract(tree: Any, sharding: Any = None) -> Any:
    """Shapes and dtypes of a pytree, as the target of a restore."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x), sharding=sharding), tree)
