"""Scores of methods that learn without labels: how well they solve the task that they set themselves.

Such a method `Examines` (see `mmreid_jax.methods.base`). It is shown images of the test splits, of which
nothing but the pixels is read; retrieval scores of such a network would need labels, and say little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmreid_jax.data.records import Records
from mmreid_jax.embedder import of_experiment
from mmreid_jax.experiment import Experiment
from mmreid_jax.methods.base import Variables
from mmreid_jax.training import logs


class Examiner:
    """Examines a method on test images; compiles one program for each modality."""

    def __init__(self, experiment: Experiment) -> None:
        """Of an experiment whose method `Examines`."""
        self._splits = experiment.splits
        self._most = experiment.config.eval.examined
        self._embedder = of_experiment(experiment, experiment.method.examine, keep=("index",))

    def __call__(self, variables: Variables, label: str) -> dict[str, Any]:
        """The means of what ``examine`` says of the images of query and gallery, by name, and the label.

        Args:
          variables: of the method, placed on the devices.
          label: for the row.
        """
        row: dict[str, Any] = {"label": label}
        for table in (self._splits.gallery, self._splits.query):
            shares = self._embedder(variables, spread(table, self._most))
            row.update({name: float(values.mean()) for name, values in shares.items()})
        return row

    def rehearse(self, variables: Variables) -> None:
        """Examines one batch of each table."""
        for table in (self._splits.gallery, self._splits.query):
            self._embedder.first(variables, spread(table, self._most))


def spread(records: Records, most: int) -> Records:
    """At most so many samples of a table, evenly spread over it; 0: all."""
    if not most or len(records) <= most:
        return records
    return records.select(np.linspace(0, len(records) - 1, most).round().astype(np.int64))


def at_first(workdir: Path) -> list[dict[str, Any]]:
    """The rows of the network before its first step, as far as the run's log has some."""
    return [{**scores, "label": label} for label, scores in logs.first_scores(workdir).items()]


def describe(rows: Sequence[Mapping[str, Any]], modalities: Sequence[str]) -> str:
    """A table for the console: one line for each row and modality."""
    names = ("exact", "stripe", "row", "gap", "mixed")
    lines = [f"{'':24}" + "".join(f"{name:>9}" for name in names)]
    for row in rows:
        for modality in modalities:
            values = [row.get(f"{name}_{modality}") for name in names]
            if any(value is not None for value in values):
                cells = "".join("        -" if value is None else f"{100 * value:9.2f}" for value in values)
                lines.append(f"{row['label'] + ', ' + modality:24}{cells}")
    if len(lines) == 1:
        return "no order is learnt (config.loss.perm_weight is 0), so there is none to score"
    return "\n".join(lines)
