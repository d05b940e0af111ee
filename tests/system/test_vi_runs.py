"""The whole program with visible-infrared methods on drawn data: pairs, drawn galleries, directions, resume, report."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from mmreid_jax import evaluate, experiment, train
from mmreid_jax.commands import average, search
from mmreid_jax.embedder import of_experiment
from mmreid_jax.errors import UserError
from mmreid_jax.scoring import retrieval
from tests.system.test_runs import assert_same_state, final_state, train_in_two_parts


def scores(workdir):
    return [json.loads(line) for line in (workdir / "scores.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_train_and_evaluate_under_every_protocol(tiny_run, data_dir, tmp_path, capsys):
    """One command trains, scores ten galleries and reports; another scores the checkpoint under all protocols."""
    train.main(tiny_run("agw", eval__report=True), tmp_path / "run")
    found = scores(tmp_path / "run")
    assert [(row["comparison"], row["protocol"]) for row in found] == [
        ("fc nir to rgb", "sysu_all_single v1"),
        ("pool nir to rgb", "sysu_all_single v1"),
    ]
    assert all(row["mAP_std"] > 0 and 0 < row["gap"] <= 2 for row in found)
    page = (tmp_path / "run" / "report.html").read_text()
    for words in ("NIR → RGB", "the first of 10 galleries", "Spread over the trials", "± standard deviation"):
        assert words in page
    capsys.readouterr()
    config = tiny_run("agw", init__checkpoint=str(tmp_path / "run"), init__which="last", eval__protocol="all")
    evaluate.main(config, tmp_path / "all")
    printed = capsys.readouterr().out
    names = {row["protocol"] for row in scores(tmp_path / "all")}
    assert names == {"sysu_all_single v1", "sysu_indoor_single v1"}
    # A folder of the small drawn set holds two images.
    for left_out in ("sysu_all_multi", "sysu_indoor_single_official"):
        assert f"note: {left_out} is left out" in printed
    # One's own images: an infrared folder searches a visible one.
    drawn = experiment.draw(config.data, data_dir).parent / "SYSU-MM01"
    for folder, camera in (("ir", "cam6"), ("vis", "cam1")):
        (tmp_path / folder).mkdir()
        for file in sorted((drawn / camera).glob("*/0001.jpg")):
            shutil.copy(file, tmp_path / folder / f"{file.parent.name}.jpg")
    sides = [f"--query={tmp_path / 'ir'}", f"--gallery={tmp_path / 'vis'}", f"--out={tmp_path / 'found'}"]
    search.main([f"--checkpoint={tmp_path / 'run'}", *sides])
    assert "ir: 12 samples, nir" in capsys.readouterr().out
    assert len((tmp_path / "found" / "matches.csv").read_text().splitlines()) == 1 + 12 * 10
    again = next(row for row in scores(tmp_path / "all") if row["protocol"] == "sysu_all_single v1")
    assert again["mAP"] == pytest.approx(found[0]["mAP"], abs=1e-6)


@pytest.mark.slow
def test_both_directions_and_the_mean_over_splits(tiny_run, tmp_path, capsys):
    workdirs = []
    for trial in (1, 2):
        workdirs.append(str(tmp_path / f"trial_{trial}"))
        config = tiny_run("hetero_center", data__dataset=f"regdb/trial_{trial}", eval__protocol="all", optim__epochs=1)
        train.main(config, tmp_path / f"trial_{trial}")
    found = scores(tmp_path / "trial_2")
    assert [(row["protocol"].split()[0], row["comparison"]) for row in found] == [
        ("regdb_visible_to_thermal", "fc rgb to tir"),
        ("regdb_visible_to_thermal", "pool rgb to tir"),
        ("regdb_thermal_to_visible", "fc tir to rgb"),
        ("regdb_thermal_to_visible", "pool tir to rgb"),
    ]
    capsys.readouterr()
    average.main(workdirs)
    both = [scores(tmp_path / f"trial_{trial}")[0]["mAP"] for trial in (1, 2)]
    assert f"{100 * np.mean(both):.2f} ± {100 * np.std(both, ddof=1):.2f}" in capsys.readouterr().out


@pytest.mark.slow
def test_roles_exchanged_after_the_draw(tiny_run, tmp_path):
    """LLCM's table of today: the drawn infrared images search all visible ones."""
    config = tiny_run("agw", data__dataset="llcm", eval__protocol="llcm_vis_to_ir_repo", optim__epochs=1)
    train.main(config, tmp_path)
    drawn = experiment.open_experiment(config, tmp_path)
    query, pool = drawn.splits.sides(("rgb",), ("nir",))
    people = len(np.unique(pool.identity.astype(int) * 100 + pool.camera))
    variables, _ = train.checkpoints.load_variables(tmp_path)
    placed = drawn.parallel.place_state(variables)
    result = retrieval.run(drawn, of_experiment(drawn, drawn.method.embed), placed, "again")[0]
    assert result.distances.shape == (people, len(query))
    assert result.query.modalities == ("nir",)
    assert len(result.gallery) == len(query)
    assert result.scores.mAP == pytest.approx(scores(tmp_path)[0]["mAP"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ddag", "hetero_center", "caj", "deen"])
def test_interrupted_in_the_second_epoch_and_resumed_is_uninterrupted(tiny_run, tmp_path, monkeypatch, method):
    """Bit for bit; DDAG's weight of the graph comes from the epoch before the interruption."""
    config = tiny_run(method, **({"loss__graph_weight": -1.0} if method == "ddag" else {}))
    train.main(config, tmp_path / "whole")
    steps = final_state(tmp_path / "whole")[0]
    train_in_two_parts(config, tmp_path / "parts", monkeypatch, steps // 2 + 2)
    whole = final_state(tmp_path / "whole")
    assert_same_state(whole, final_state(tmp_path / "parts"))
    assert any("memory" in name for name in whole[1]) == (method == "ddag")


@pytest.mark.slow
def test_what_does_not_fit_is_named(tiny_run, tmp_path):
    for changes, message in (
        ({"train__images_per_identity": 50, "train__replacement": False}, "50"),
        ({"eval__protocol": "regdb_visible_to_thermal_"}, "unknown protocol 'regdb_visible_to_thermal_'"),
        ({"eval__feature": "fcc"}, "config.eval.feature is 'fcc'"),
        ({"data__modalities": ("rgb",)}, "shared_from is 1, but the data have rgb images alone"),
        ({"train__sampler": "cameras"}, "config.train.sampler is 'cameras'"),
    ):
        with pytest.raises(UserError, match=message):
            train.main(tiny_run("agw", **changes), tmp_path / "bad")
    with pytest.raises(UserError, match="compares two modalities"):
        train.main(tiny_run("agw", data__dataset="rgbnt201", data__drawn_images=6), tmp_path / "bad")
