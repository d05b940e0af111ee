"""The whole program with DeMo and MDReID on drawn data: resumed bit for bit, all pairs of modalities, and searches."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmreid_jax import experiment, train
from mmreid_jax.commands import extract, search
from mmreid_jax.retrieval import feature_files
from tests.system.test_runs import assert_same_state, final_state, train_in_two_parts

METHODS = ("demo_moe", "mdreid")


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_interrupted_and_resumed_is_uninterrupted(method, tiny_run, tmp_path, monkeypatch):
    """Bit for bit, with the random numbers of dropout and of missing modalities, and a rate with noise."""
    config = tiny_run(method, train__missing_modalities=0.5)
    train.main(config, tmp_path / "whole")
    train_in_two_parts(config, tmp_path / "parts", monkeypatch, 4)
    assert_same_state(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_report_and_search_of_unlike_modalities(method, tiny_run, tmp_path, data_dir, capsys):
    options = {"eval__all_pairs": True, "eval__missing_any": True, "eval__report": True}
    config = tiny_run(method, optim__epochs=1, train__eval_every=1, **options)
    train.main(config, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "scores.jsonl").read_text().splitlines()]
    found = {line["label"]: line["mAP"] for line in lines}
    assert found["trained, all modalities"] == found["trained"]
    assert len(found) == 1 + 1 + 49
    assert 0 < found["trained, M(any)"] <= 1
    page = (tmp_path / "run" / "report.html").read_text()
    assert "queries of the modalities on the left against a gallery of those above" in page
    assert "RGB+TIR" in capsys.readouterr().out
    drawn = experiment.draw(config.data, data_dir).parent
    images = next(drawn.rglob("test"))
    folders = {"RGB": "rgb", "TI": "tir"}
    model = ["--checkpoint", str(tmp_path / "run")]
    for name, modality in folders.items():
        sides = ["--images", str(images / name), "--modality", modality]
        against = next(other for other in folders.values() if other != modality)
        extract.main([*model, *sides, "--against", against, "--out", str(tmp_path / f"{modality}.npz")])
    kept = {name: feature_files.load(tmp_path / f"{name}.npz").features for name in folders.values()}
    assert kept["rgb"].shape == kept["tir"].shape
    query, gallery = (["--query", str(images / "TI")], ["--gallery", str(images / "RGB")])
    modalities = ["--query_modality", "tir", "--gallery_modality", "rgb"]
    search.main([*model, *query, *gallery, *modalities, "--out", str(tmp_path / "folders"), "--with_self"])
    stored = ["--query", str(tmp_path / "tir.npz"), "--gallery", str(tmp_path / "rgb.npz")]
    search.main([*stored, "--out", str(tmp_path / "stored"), "--with_self"])
    one, other = ((tmp_path / name / search.TABLE).read_text().splitlines() for name in ("folders", "stored"))
    values = [np.array([float(line.rsplit(",", 1)[1]) for line in table[1:]]) for table in (one, other)]
    np.testing.assert_allclose(*values, atol=1e-4)
