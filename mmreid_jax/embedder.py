"""Runs a function of a method over whole tables, batch by batch: features, maps, whatever it says of every sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mmreid_jax.data import pipeline
from mmreid_jax.data.records import Records
from mmreid_jax.experiment import Experiment, image_options, normalization
from mmreid_jax.methods.base import Variables
from mmreid_jax.training import step

Batches = Callable[[Records], Iterator[dict[str, Any]]]
"""Table -> its samples in order as batches on the devices; the rows after its last sample fill up the last one."""


class Embedder:
    """A function (variables, batch) -> arrays by name of all samples of a table.

    It is compiled once for each set of absent modalities.
    """

    def __init__(
        self, function: Callable[..., dict[str, Any]], parallel: step.Parallel, batches: Batches, data: Any
    ) -> None:
        """Of a function of a method, such as `Method.embed`.

        Args:
          function: the function.
          parallel: the devices.
          batches: makes the batches.
          data: ``config.data``, which says how pixels become numbers.
        """
        self._function = function
        self._parallel = parallel
        self._batches = batches
        self._normalization = normalization(data)
        self._compiled: dict[tuple[str, ...], Callable[..., dict[str, Any]]] = {}

    def pieces(
        self,
        variables: Variables,
        records: Records,
        names: Sequence[str] | None = None,
        absent: Sequence[str] = (),
        axis: int = 0,
    ) -> Iterator[dict[str, np.ndarray]]:
        """What the function says of the samples of a table, batch by batch, without what fills up the last one.

        Args:
          variables: of the method, placed on the devices.
          records: the table, N samples.
          names: of the arrays wanted; None: all. What the function does not say of this table is left out.
          absent: modalities that the network does not get to see.
          axis: of the samples in the arrays.
        """
        key = tuple(absent)
        if key not in self._compiled:
            pure = step.embed_step(self._function, self._normalization, key)
            self._compiled[key] = self._parallel.jit_embed(pure)
        left = len(records)
        for batch in self._batches(records):
            outputs = self._compiled[key](variables, batch)
            # Padding rows follow the last sample of the global batch, whatever part of it this process loaded.
            rows = min([left, *(value.shape[axis] for value in outputs.values())])
            left -= rows
            wanted = outputs if names is None else {name: outputs[name] for name in names if name in outputs}
            yield {name: np.asarray(value).take(np.arange(rows), axis) for name, value in wanted.items()}

    def __call__(
        self,
        variables: Variables,
        records: Records,
        names: Sequence[str] | None = None,
        absent: Sequence[str] = (),
        axis: int = 0,
    ) -> dict[str, np.ndarray]:
        """The same of the whole table at once: name -> array whose `axis` is N. Arguments are those of `pieces`."""
        parts: dict[str, list[np.ndarray]] = {}
        for piece in self.pieces(variables, records, names, absent, axis):
            for name, value in piece.items():
                parts.setdefault(name, []).append(value)
        return {name: np.concatenate(blocks, axis) for name, blocks in parts.items()}


def of_experiment(
    experiment: Experiment, function: Callable[..., dict[str, Any]], keep: Sequence[str] = ()
) -> Embedder:
    """Over all devices of all processes, with images from where the experiment holds them.

    Args:
      experiment: with data and devices.
      function: of the method.
      keep: columns of a batch that the function wants, see `step.Parallel.place_batch`.
    """
    data = experiment.config.data
    return Embedder(function, experiment.parallel, lambda table: experiment.evaluation_batches(table, keep), data)


def of_few(
    config: Any,
    parallel: step.Parallel,
    function: Callable[..., dict[str, Any]],
    *,
    size: int = 0,
    threads: int = 1,
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda batch: batch,
    keep: Sequence[str] = (),
) -> Embedder:
    """Over devices of this process alone, which keeps no decoded images and waits for no other process.

    Args:
      config: of the experiment.
      parallel: the devices.
      function: of the method.
      size: samples in a batch; 0: those of the table, or ``config.eval.batch_size`` of it if they are more.
      threads: that decode.
      change: what is done to a batch on the host.
      keep: columns of a batch that the function wants, see `step.Parallel.place_batch`.
    """
    options = image_options(config.data, cache=False)

    def batches(records: Records) -> Iterator[dict[str, Any]]:
        rows = size or min(len(records), config.eval.batch_size)
        rows = -(-rows // parallel.size) * parallel.size
        with pipeline.eval_batches(records, options, rows, threads=threads) as loaded:
            for batch in loaded:
                yield parallel.place_batch(change(batch), keep=keep)

    return Embedder(function, parallel, batches, config.data)
