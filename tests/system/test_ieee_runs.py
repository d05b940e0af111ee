"""The whole program with IEEE on drawn data: two stages, resumed bit for bit, two modalities, every comparison."""

from __future__ import annotations

import json

import pytest

from mmreid_jax import train
from mmreid_jax.errors import UserError
from mmreid_jax.testing import tiny
from tests.system.test_runs import assert_same_state, final_state, train_in_two_parts


@pytest.fixture
def tiny_run(data_dir):
    """A config of IEEE that trains in seconds, on the drawn data of the other tests."""

    def make(**changes):
        common = {
            "data__drawn": True,
            "data__data_dir": str(data_dir),
            "data__drawn_identities": 6,
            "data__drawn_images": 6,
            "data__threads": 1,
            "train__images_per_identity": 2,
            "train__eval_every": 2,
            "optim__epochs": 2,
            "eval__batch_size": 16,
            "eval__report": False,
        }
        return tiny.config("ieee", **{**common, **changes}).lock()

    return make


def scores(workdir):
    return [json.loads(line) for line in (workdir / "scores.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_interrupted_in_the_second_stage_and_resumed_is_uninterrupted(tiny_run, tmp_path, monkeypatch):
    """Bit for bit; the first epoch trains the classifiers alone, and the resumed run knows that it is over."""
    config = tiny_run(train__fixbase_epochs=1)
    train.main(config, tmp_path / "whole")
    train_in_two_parts(config, tmp_path / "parts", monkeypatch, 6)
    whole = final_state(tmp_path / "whole")
    assert_same_state(whole, final_state(tmp_path / "parts"))
    assert any("all_open_from" in name for name in whole[1])


@pytest.mark.slow
def test_two_modalities_and_any_modality_queries_any_other(tiny_run, tmp_path):
    changes = {"data__modalities": ("rgb", "tir"), "eval__cross_modal": True, "eval__missing_modalities": True}
    train.main(tiny_run(**changes, eval__report=True, train__eval_every=3, optim__epochs=1), tmp_path)
    found = {entry["label"]: entry["comparison"] for entry in scores(tmp_path)}
    assert found == {
        "trained": "all modalities",
        "trained, M(RGB)": "all modalities",
        "trained, M(TIR)": "all modalities",
        "trained, rgb to tir": "rgb to tir",
        "trained, tir to rgb": "tir to rgb",
    }
    assert "tir to rgb" in (tmp_path / "report.html").read_text()


def test_a_modality_that_the_data_lack_is_named(tiny_run, tmp_path):
    with pytest.raises(UserError, match="depth"):
        train.main(tiny_run(data__modalities=("rgb", "depth")), tmp_path)
