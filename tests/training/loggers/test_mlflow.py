"""A run for MLflow, in a data base of the workdir."""

from __future__ import annotations

import io

import pytest

from mmreid_jax.training.logs import RunLog

pytestmark = pytest.mark.loggers


def run(workdir, first, last, **changes):
    config = {"seed": 1, "data": {"dataset": "rgbnt201"}}
    with RunLog(workdir, total_steps=20, loggers=("mlflow",), config=config, stream=io.StringIO(), **changes) as log:
        for step in range(first, last + 1):
            log.step(step, 1, {"loss": float(step)}, images=8, every=5)
        log.evaluation(last, 1, {"mAP": 0.5, "label": "x"})


def test_a_run_is_written_and_resumed(tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run(tmp_path, 1, 10)
    run(tmp_path, 11, 20, start_step=10)
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mmreid_jax")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_id == (tmp_path / "mlflow" / "train.id").read_text()
    assert found.info.status == "FINISHED"
    assert found.data.params["data.dataset"] == "rgbnt201"
    losses = client.get_metric_history(found.info.run_id, "train/loss")
    assert [(each.step, each.value) for each in losses] == [(5, 3.0), (10, 8.0), (15, 13.0), (20, 18.0)]
    assert found.data.metrics["eval/mAP"] == 0.5
    run(tmp_path, 1, 5)
    assert len(client.search_runs([experiment.experiment_id])) == 2
