"""The whole program on drawn data: it learns, resumes bit for bit, adapts, reports, extracts and searches."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from configs import demo
from mmreid_jax import adapt, datasets, evaluate, experiment, model, train
from mmreid_jax.commands import extract, rerank, search
from mmreid_jax.datasets import catalogue
from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import feature_files, metrics
from mmreid_jax.training import checkpoints, logs, step

ROOT = pathlib.Path(__file__).parents[2]


def final_state(workdir, folder=checkpoints.FOLDER):
    """Every array of the last checkpoint, by path; it must have been written by as many devices as there are here."""
    import orbax.checkpoint as ocp

    with checkpoints.Checkpoints(workdir / folder) as store:
        latest = store.latest_step()
    with ocp.PyTreeCheckpointer() as reader:
        tree = reader.restore(workdir / folder / str(latest) / "state")
    return latest, {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def final_variables(workdir):
    """Parameters and statistics of the last checkpoint, by path, whatever devices wrote it."""
    tree, meta = checkpoints.load_variables(workdir, which="last")
    return meta["step"], {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def assert_same_state(one, two):
    assert one[0] == two[0]
    assert one[1].keys() == two[1].keys()
    for name, wanted in one[1].items():
        np.testing.assert_array_equal(two[1][name], wanted, err_msg=name)


def train_in_two_parts(config, workdir, monkeypatch, stop_at):
    """Trains, is told to stop while batch `stop_at` (from 1) is being placed, and goes on by the same call."""
    seen = []
    true = step.Parallel.place_batch

    def place(self, batch, *more):
        if "erase" in batch:
            seen.append(1)
            if len(seen) == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
        return true(self, batch, *more)

    monkeypatch.setattr(step.Parallel, "place_batch", place)
    with pytest.raises(UserError, match="goes on from there"):
        train.main(config, workdir)
    monkeypatch.undo()
    train.main(config, workdir)


def evaluations(workdir):
    return [entry for entry in logs.read_metrics(workdir / "metrics.jsonl") if entry.get("kind") == "eval"]


def command_line(data_dir, workdir, changes):
    """The command that runs the demo's config with changes, on one device."""
    changes = {"data.data_dir": data_dir, "eval.report": False, "eval.missing_modalities": False, **changes}
    command = [sys.executable, "main.py", "--config", "configs/demo.py", f"--workdir={workdir}", "--config.task=train"]
    return command + [f"--config.{name}={value}" for name, value in changes.items()]


@pytest.mark.slow
def test_training_beats_chance(data_dir, tmp_path):
    """A few epochs are enough to rank unseen identities better than an order drawn at random would."""
    changes = {"data.drawn_images": 8, "train.eval_every": 16}
    command = command_line(data_dir, tmp_path, changes)
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "XLA_FLAGS": ""}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    found = evaluations(tmp_path)
    config = demo.get_config()
    config.data.drawn_images = changes["data.drawn_images"]
    prepared = experiment.draw(config.data, data_dir)
    query, gallery = (catalogue.load("rgbnt201", split, prepared) for split in ("query", "gallery"))
    apart = np.random.default_rng(0).random((len(query), len(gallery)))
    chance = metrics.evaluate(apart, query, gallery, datasets.get("rgbnt201").protocols[0]).mAP
    assert found[-1]["mAP"] > 1.5 * chance
    assert found[-1]["mAP"] > found[0]["mAP"]


@pytest.mark.slow(short=True)
@pytest.mark.parametrize("stop_at", [1, 4])
def test_interrupted_and_resumed_is_uninterrupted(small, tmp_path, monkeypatch, stop_at):
    """Bit for bit, also when the signal comes in the middle of an epoch."""
    config = small(optim__epochs=3, train__eval_every=3)
    train.main(config, tmp_path / "whole")
    train_in_two_parts(config, tmp_path / "parts", monkeypatch, stop_at)
    assert_same_state(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))
    found = (logs.read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts"))
    wanted, got = ([{k: e[k] for k in ("step", "mAP")} for e in log if e["kind"] == "eval"] for log in found)
    assert wanted == got


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_is_uninterrupted(data_dir, tmp_path):
    """SIGKILL several times, also while a checkpoint is being written; bitwise the same in the end."""

    def start(workdir):
        changes = {
            "data.drawn_identities": 6,
            "data.drawn_images": 6,
            "data.image_size": "(32,16)",
            "data.padding": 2,
            "model.backbone": "vit_micro",
            "init.backbone": "",
            "train.identities_per_batch": 4,
            "train.images_per_identity": 2,
            "train.eval_every": 60,
            "train.checkpoint_every": 1,
            "optim.epochs": 60,
        }
        command = command_line(data_dir, workdir, changes)
        environment = {**os.environ, "XLA_FLAGS": ""}
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    whole = start(tmp_path / "whole")
    _, said = whole.communicate(timeout=600)
    assert whole.returncode == 0, said.decode()[-2000:]
    rng = np.random.default_rng(0)
    for _ in range(4):
        process = start(tmp_path / "parts")
        folder = tmp_path / "parts" / checkpoints.FOLDER
        seen = {path.name for path in folder.glob("*")}
        while process.poll() is None and {path.name for path in folder.glob("*")} == seen:
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.4))
        process.kill()
        process.communicate()
    last = start(tmp_path / "parts")
    _, said = last.communicate(timeout=600)
    assert last.returncode == 0, said.decode()[-2000:]
    assert_same_state(final_variables(tmp_path / "whole"), final_variables(tmp_path / "parts"))


@pytest.mark.slow
def test_the_best_and_the_last_checkpoint_are_kept(small, tmp_path):
    train.main(small(optim__epochs=4, train__eval_every=1), tmp_path)
    scores = {entry["step"]: entry["mAP"] for entry in evaluations(tmp_path) if entry["step"]}
    kept = {int(path.name) for path in (tmp_path / checkpoints.FOLDER).iterdir() if path.name.isdigit()}
    assert kept == {max(scores), max(scores, key=lambda at: (scores[at], -at))}


@pytest.mark.slow(short=True)
@pytest.mark.parametrize("form", ["code", "paper"])
def test_adaptation_changes_the_backbone_alone(small, tmp_path, form):
    train.main(small(), tmp_path / "trained")
    changes = {"mtt__statistics": "batch", "mtt__mmm_weight": 1.0, "init__checkpoint": str(tmp_path / "trained")}
    adapt.main(small(task="adapt", mtt__form=form, **changes), tmp_path / "adapted")
    before, _ = checkpoints.load_variables(tmp_path / "trained")
    after, _ = checkpoints.load_variables(tmp_path / "adapted" / adapt.FOLDER, which="last")
    changed = {
        jax.tree_util.keystr(path).split("'")[1]
        for (path, old), new in zip(
            jax.tree.leaves_with_path(before["params"]), jax.tree.leaves(after["params"]), strict=True
        )
        if not np.array_equal(old, new)
    }
    assert changed == {"backbone"}
    assert not np.array_equal(before["batch_stats"]["bottleneck"]["mean"], after["batch_stats"]["bottleneck"]["mean"])


@pytest.mark.slow
def test_adaptation_in_episodes_and_with_new_statistics(small, tmp_path):
    train.main(small(), tmp_path / "trained")
    checkpoint = str(tmp_path / "trained")
    config = small(task="adapt", init__checkpoint=checkpoint, mtt__episodic=True, mtt__episode_size=20)
    adapt.main(config, tmp_path / "episodes")
    labels = [line for line in (tmp_path / "episodes" / "scores.jsonl").read_text().splitlines() if "episodes" in line]
    assert len(labels) == 1
    config = small(task="adapt", init__checkpoint=checkpoint, mtt__reestimate_statistics=True)
    adapt.main(config, tmp_path / "statistics")
    assert (tmp_path / "statistics" / "scores.jsonl").exists()


@pytest.mark.slow(short=True)
def test_a_report_shows_the_captions_of_aligned_queries(small, tmp_path, data_dir):
    """They are in the batches of training and evaluation; HTT does not read them."""
    config = small(eval__report=True, task="train", optim__epochs=1, data__text=True, data__captioner="QwenVL")
    train.main(config, tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    drawn = experiment.draw(config.data, data_dir).parent
    told = {}
    for kind in ("RGB", "NI", "TI"):
        entries = json.loads((drawn / "RGBNT201" / "text" / f"test_{kind}.json").read_text())
        told[kind] = {entry["item"]: entry["description"] for entry in entries}
    shown = [
        name for name in told["RGB"] if "RGB: {}; NIR: {}; TIR: {}.".format(*(t[name] for t in told.values())) in page
    ]
    assert len(shown) >= 4


def test_report_extract_and_search(small, tmp_path, data_dir, capsys):
    config = small(eval__report=True, eval__missing_modalities=True, task="train_adapt")
    adapt.main(config, tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    for part in ("M(RGB)", "after MTT", "untrained", "mINP", "data:image", "<h1>HTT on rgbnt201 (drawn data)</h1>"):
        assert part in page
    said = capsys.readouterr()
    assert "report.html" in said.out
    # Before the work, and above the scores; in the file in every line.
    assert "htt on rgbnt201 (drawn data)\n" in said.out
    assert "htt on rgbnt201 (drawn data): train " in said.err
    lines = [json.loads(line) for line in (tmp_path / "run" / "scores.jsonl").read_text().splitlines()]
    assert [line["drawn"] for line in lines] == [True] * len(lines)
    assert len(list((tmp_path / "run" / "figures").glob("*.png"))) >= 4

    drawn = experiment.draw(config.data, data_dir).parent
    test = next(drawn.rglob("test"))
    out = tmp_path / "features.npz"
    extract.main(["--checkpoint", str(tmp_path / "run"), "--images", str(test), "--out", str(out)])
    stored = feature_files.load(out)
    assert len(stored.features) == len(stored.files) == len(list((test / "RGB").iterdir()))
    assert stored.note["absent"] == []
    np.testing.assert_allclose(np.linalg.norm(stored.features, axis=1), 1, rtol=1e-5)
    table = catalogue.load("rgbnt201", "query", drawn / "prepared")
    np.testing.assert_array_equal(stored.files, table.file)
    np.testing.assert_array_equal(stored.labels.identity, table.identity)
    np.testing.assert_array_equal(stored.labels.camera, table.camera)
    scores = metrics.evaluate(
        datasets.protocol("rgbnt").distances(stored.features, stored.features), table, table, datasets.protocol("rgbnt")
    )
    capsys.readouterr()
    rerank.main([str(out), "--k1", "8", "--k2", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert f"{100 * scores.mAP:.2f}" in next(line for line in lines if line.startswith("as they are"))
    assert any(line.startswith("re-ranked") for line in lines)

    folder, checkpoint = str(test / "RGB"), str(tmp_path / "run")
    search.main(["--checkpoint", checkpoint, "--query", folder, "--gallery", folder, "--out", str(tmp_path / "s")])
    rows = (tmp_path / "s" / "matches.csv").read_text().splitlines()
    query, rank, match, distance = rows[1].split(",")
    # A query is no match of its own.
    assert query != match
    assert rank == "1"
    assert float(distance) > 0
    assert (tmp_path / "s" / "search.html").exists()


@pytest.mark.slow(short=True)
def test_an_evaluated_checkpoint_gives_the_score_of_training(small, tmp_path):
    train.main(small(), tmp_path / "run")
    evaluate.main(small(init__checkpoint=str(tmp_path / "run"), init__which="last"), tmp_path / "again")
    trained = evaluations(tmp_path / "run")[-1]["mAP"]
    import json

    again = json.loads((tmp_path / "again" / "scores.jsonl").read_text().splitlines()[0])["mAP"]
    assert again == pytest.approx(trained, abs=1e-9)
    assert model.Extractor(tmp_path / "again").feature == "after"
