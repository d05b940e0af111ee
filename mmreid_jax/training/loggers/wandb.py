"""Weights & Biases: project ``mmreid_jax``, or what ``WANDB_PROJECT`` says; ``WANDB_MODE=offline`` sends nothing.

Reference: https://docs.wandb.ai/ref/python.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mmreid_jax.training.loggers import Run, new_name


class WeightsAndBiases:
    """See `mmreid_jax.training.loggers.Board`."""

    def __init__(self, run: Any) -> None:
        """Around a run of wandb's."""
        self._run = run

    def add(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Logs the numbers of a step."""
        self._run.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


def open_board(run: Run) -> WeightsAndBiases:
    """A run that a resumed one goes on with; its files lie in ``WORKDIR/wandb``."""
    import wandb

    name = run.remembered("wandb") or run.remembered("wandb", new_name())
    opened = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "mmreid_jax"),
        dir=str(run.workdir),
        id=name,
        name=f"{run.workdir.name} {run.kind}",
        config=dict(run.config),
        resume="allow",
        settings=wandb.Settings(silent=True),
    )
    return WeightsAndBiases(opened)
