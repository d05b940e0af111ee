"""Means over several runs."""

import json

import numpy as np
import pytest

from mmreid_jax.commands import average
from mmreid_jax.errors import UserError
from mmreid_jax.scoring.retrieval import COLUMNS


def scores(seed, label="trained", protocol="regdb_visible_to_thermal v1"):
    values = np.random.default_rng(seed).random(len(COLUMNS))
    return {"label": label, "protocol": protocol, **dict(zip(COLUMNS, values.tolist(), strict=True))}


def workdir(folder, *rows):
    folder.mkdir()
    (folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_newest_scores_of_what_all_runs_have(tmp_path, capsys):
    newest = [scores(seed) for seed in (1, 2, 3)]
    folders = [workdir(tmp_path / f"run{i}", scores(90 + i), row) for i, row in enumerate(newest)]
    workdir(tmp_path / "more", scores(7, "other"), scores(8))
    average.main([*map(str, folders), str(tmp_path / "more")])
    printed = capsys.readouterr().out
    every = [100 * row["mAP"] for row in (*newest, scores(8))]
    assert f"{np.mean(every):.2f} ± {np.std(every, ddof=1):.2f}" in printed
    assert "4 runs" in printed
    assert "regdb_visible_to_thermal v1" in printed
    assert "other" not in printed


@pytest.mark.parametrize(
    ("what", "ones", "others", "message"),
    [
        ("method", "agw", "ddag", r"different methods \(agw, ddag\)"),
        ("dataset", "sysu_mm01", "regdb/trial_1", r"different data sets \(regdb, sysu_mm01\)"),
        ("comparison", "rgb, fc", "rgb, pool", "different comparisons"),
        ("drawn", True, False, r"different origins \(drawn, photographed\)"),
    ],
)
def test_what_cannot_be_averaged(tmp_path, what, ones, others, message):
    folders = [workdir(tmp_path / f"run{i}", {**scores(i), what: value}) for i, value in enumerate((ones, others))]
    with pytest.raises(UserError, match=message):
        average.main([*map(str, folders)])


def test_splits_of_a_data_set_and_lines_of_earlier_versions_are_averaged(tmp_path, capsys):
    rows = [scores(1), {**scores(2), "dataset": "regdb/trial_1"}, {**scores(3), "dataset": "regdb/trial_2"}]
    average.main([str(workdir(tmp_path / f"run{i}", row)) for i, row in enumerate(rows)])
    assert "3 runs" in capsys.readouterr().out


@pytest.mark.parametrize("drawn", [True, False])
def test_scores_of_drawn_data_say_so(tmp_path, capsys, drawn):
    average.main([str(workdir(tmp_path / f"run{i}", {**scores(i), "drawn": drawn})) for i in range(2)])
    assert ("of 2 runs on drawn data\n" in capsys.readouterr().out) == drawn


def test_one_run_has_no_spread(tmp_path, capsys):
    average.main([str(workdir(tmp_path / "run", scores(1)))])
    assert f"{100 * scores(1)['R1']:.2f} ± 0.00" in capsys.readouterr().out


def test_mistakes(tmp_path):
    good = str(workdir(tmp_path / "good", scores(1)))
    other = str(workdir(tmp_path / "other", scores(1, protocol="llcm v1")))
    broken = workdir(tmp_path / "broken")
    (broken / "scores.jsonl").write_text('{"label": "x"')
    for arguments, message in (
        ([good, good], "more than once"),
        ([good, str(tmp_path)], "has no scores.jsonl"),
        ([good, other], "share no evaluation"),
        ([str(broken)], "line 1 of"),
    ):
        with pytest.raises(UserError, match=message):
            average.main(arguments)
