"""The whole program with MMGL on drawn data: without labels, with pictures, resumed, and on to a supervised method."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from mmreid_jax import evaluate, experiment, train
from tests.system.test_runs import assert_same_state, final_state, train_in_two_parts

NAMES = [f"{name}_{modality}" for modality in ("rgb", "nir") for name in ("exact", "stripe", "row", "gap", "mixed")]


@pytest.fixture
def pretext(tiny_run):
    """A config of MMGL that trains in seconds."""

    def make(**changes):
        batch = {"train__identities_per_batch": 1, "train__images_per_identity": 8}
        return tiny_run("mmgl", **{**batch, "eval__examined": 20, **changes})

    return make


@pytest.mark.slow
def test_pretrain_report_evaluate_and_go_on_with_labels(pretext, tiny_run, tmp_path, capsys):
    train.main(pretext(eval__report=True, train__evaluate_first=True), tmp_path / "run")
    (row,) = (json.loads(line) for line in (tmp_path / "run" / "scores.jsonl").read_text().splitlines())
    assert all(0 <= row[name] <= 1 for name in NAMES)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "exact" in page
    printed = capsys.readouterr()
    assert "train 72 samples without labels" in printed.err
    assert "untrained, rgb" in printed.out
    evaluate.main(pretext(init__checkpoint=str(tmp_path / "run")), tmp_path / "again")
    again = json.loads((tmp_path / "again" / "scores.jsonl").read_text())
    assert {name: again[name] for name in NAMES} == {name: row[name] for name in NAMES}
    config = tiny_run("agw", model__backbone="resnet_nano2", init__from_mmgl=str(tmp_path / "run"), optim__epochs=1)
    train.main(config, tmp_path / "agw")
    assert "arrays taken" in capsys.readouterr().out


@pytest.mark.slow
def test_shuffled_labels_change_no_bit_of_a_run(pretext, tmp_path, monkeypatch):
    load = experiment.catalogue.load

    def shuffled(dataset, split, **options):
        table = load(dataset, split, **options)
        order = np.random.default_rng(0).permutation(len(table))
        columns = {name: getattr(table, name)[order] for name in ("identity", "camera", "scene")}
        label = None if table.label is None else table.label[order] + 1
        return dataclasses.replace(table, **columns, label=label)

    train.main(pretext(), tmp_path / "one")
    monkeypatch.setattr(experiment.catalogue, "load", shuffled)
    train.main(pretext(), tmp_path / "other")
    assert_same_state(final_state(tmp_path / "one"), final_state(tmp_path / "other"))
    one, other = ((tmp_path / name / "scores.jsonl").read_text().split('"time"')[0] for name in ("one", "other"))
    assert one == other


@pytest.mark.slow
def test_interrupted_and_resumed_is_uninterrupted(pretext, tmp_path, monkeypatch):
    config = pretext()
    train.main(config, tmp_path / "whole")
    steps = final_state(tmp_path / "whole")[0]
    train_in_two_parts(config, tmp_path / "parts", monkeypatch, steps // 2 + 1)
    assert_same_state(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))
