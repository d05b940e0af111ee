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
    assert f"{np.mean(every):.1f} ± {np.std(every, ddof=1):.1f}" in printed
    assert "4 runs" in printed
    assert "regdb_visible_to_thermal v1" in printed
    assert "other" not in printed


def test_one_run_has_no_spread(tmp_path, capsys):
    average.main([str(workdir(tmp_path / "run", scores(1)))])
    assert f"{100 * scores(1)['R1']:.1f} ± 0.0" in capsys.readouterr().out


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
