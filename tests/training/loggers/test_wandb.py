"""A run for Weights & Biases, without a network."""

from __future__ import annotations

import io

import pytest

from mmreid_jax.training.logs import RunLog

pytestmark = pytest.mark.loggers


def run(workdir, first, last, **changes):
    with RunLog(
        workdir, total_steps=20, loggers=("wandb",), config={"seed": 1}, stream=io.StringIO(), **changes
    ) as log:
        for step in range(first, last + 1):
            log.step(step, 1, {"loss": float(step)}, images=8, every=5)
        log.evaluation(last, 1, {"mAP": 0.5, "label": "x"})


def test_an_offline_run_is_written_and_resumed(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    run(tmp_path, 1, 10)
    name = (tmp_path / "wandb" / "train.id").read_text()
    files = list((tmp_path / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
    assert len(files) == 1
    content = files[0].read_bytes()
    assert b"train/loss" in content
    assert b"eval/mAP" in content
    run(tmp_path, 11, 20, start_step=10)
    assert (tmp_path / "wandb" / "train.id").read_text() == name
    run(tmp_path, 1, 5)
    assert (tmp_path / "wandb" / "train.id").read_text() != name
