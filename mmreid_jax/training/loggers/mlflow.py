"""MLflow: experiment ``mmreid_jax``, or what ``MLFLOW_EXPERIMENT_NAME`` says, in ``WORKDIR/mlflow/mlflow.db``.

``MLFLOW_TRACKING_URI`` names a server or another data base. Reference: https://mlflow.org/docs/latest/ml/tracking.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from mmreid_jax.training.loggers import Run

# Of a value that MLflow stores of a parameter, and of what it takes at once.
_LONGEST, _TOGETHER = 6000, 100


class MLflow:
    """See `mmreid_jax.training.loggers.Board`."""

    def __init__(self, client: Any, name: str) -> None:
        """Around a client and the name of a run."""
        self._client, self._name = client, name

    def add(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Logs the numbers of a step."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(f"{kind}/{name}", value, now, step) for name, value in values.items()]
        self._client.log_batch(self._name, metrics=metrics)

    def close(self) -> None:
        """Ends the run."""
        self._client.set_terminated(self._name)


def open_board(run: Run) -> MLflow:
    """A run that a resumed one goes on with."""
    from mlflow.entities import Param
    from mlflow.tracking import MlflowClient

    folder = run.workdir.absolute() / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}")
    if name := run.remembered("mlflow"):
        client.update_run(name, status="RUNNING")
        return MLflow(client, name)
    wanted = os.environ.get("MLFLOW_EXPERIMENT_NAME", "mmreid_jax")
    found = client.get_experiment_by_name(wanted)
    experiment = found.experiment_id if found else client.create_experiment(wanted)
    name = client.create_run(experiment, run_name=f"{run.workdir.name} {run.kind}").info.run_id
    params = [Param(key, value[:_LONGEST]) for key, value in run.flat().items()]
    for start in range(0, len(params), _TOGETHER):
        client.log_batch(name, params=params[start : start + _TOGETHER])
    return MLflow(client, run.remembered("mlflow", name))
