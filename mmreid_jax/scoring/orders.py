"""Scores of methods that learn without labels: how well they solve the task that they set themselves.

Such a method offers ``examine`` (see `mmreid_jax.methods.base.Method`). It is shown images of the test splits, of which
nothing but the pixels is read; retrieval scores of such a network would need labels, and say little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmreid_jax.data.records import Records
from mmreid_jax.experiment import Experiment
from mmreid_jax.training import logs, step


class Examiner:
    """Examines a method on test images; compiles one program for each modality."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self._compiled = experiment.parallel.jit_embed(
            step.embed_step(experiment.method.examine, experiment.normalization)
        )

    def __call__(self, variables: Any, label: str) -> dict[str, Any]:
        """The means of what ``examine`` says of the images of query and gallery, by name, and the label.

        Args:
          variables: of the method, placed on the devices.
          label: for the row.
        """
        splits, row = self.experiment.splits, {"label": label}
        for table in (splits.gallery, splits.query):
            row.update(self._means(variables, spread(table, self.experiment.config.eval.examined)))
        return row

    def _means(self, variables: Any, records: Records) -> dict[str, Any]:
        batches = self.experiment.evaluation_batches(records, keep=("index",))
        parts = [step.fetch(self._compiled(variables, batch)) for batch in batches]
        # The rows after the table's last one only fill up the last batch.
        return {name: float(np.concatenate([p[name] for p in parts])[: len(records)].mean()) for name in parts[0]}


def spread(records: Records, most: int) -> Records:
    """At most so many samples of a table, evenly spread over it; 0: all."""
    if not most or len(records) <= most:
        return records
    return records.select(np.linspace(0, len(records) - 1, most).round().astype(np.int64))


def untrained(workdir: Path) -> list[dict[str, Any]]:
    """The row of the network before its first step, where the run's log has one."""
    found = logs.untrained_scores(workdir)
    return [{**found, "label": "untrained"}] if found else []


def describe(rows: Sequence[Mapping[str, Any]], modalities: Sequence[str]) -> str:
    """A table for the console: one line for each row and modality."""
    names = ("exact", "stripe", "row", "gap", "mixed")
    lines = [f"{'':24}" + "".join(f"{name:>9}" for name in names)]
    for row in rows:
        for modality in modalities:
            values = [row.get(f"{name}_{modality}") for name in names]
            if any(value is not None for value in values):
                told = "".join("        -" if value is None else f"{100 * value:9.1f}" for value in values)
                lines.append(f"{row['label'] + ', ' + modality:24}{told}")
    if len(lines) == 1:
        return "no order is learnt (config.loss.perm_weight is 0), so there is none to score"
    return "\n".join(lines)
