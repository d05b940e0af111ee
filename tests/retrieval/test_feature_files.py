"""Feature files of every form, their interruption, and searches among them without a model."""

from __future__ import annotations

import contextlib
import csv
import pathlib

import numpy as np
import pytest

from mmreid_jax.commands import search
from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import feature_files, metrics, streamed
from tests.processes import run_two

ROOT = pathlib.Path(__file__).parents[1]
NOTE = {"checkpoint": "run"}


def table(count=10, width=4):
    """Features of length one, file names and labels."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(count, width)).astype(np.float32)
    files = np.array([f"{i:03d}.jpg" for i in range(count)])
    numbers = np.arange(count)
    labels = metrics.Labels(numbers // 2, numbers % 2, 0 * numbers)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), files, labels


def pieces(rows, size=3):
    """What an extractor gives: (start, stop) -> rows in pieces."""
    return lambda start, stop: (rows[at : min(at + size, stop)] for at in range(start, stop, size))


def matches(out):
    with (out / "matches.csv").open() as file:
        return [(row["query"], row["match"]) for row in csv.DictReader(file)]


def test_a_folder_is_what_was_written_to_it(tmp_path):
    rows, files, labels = table()
    assert feature_files.write(tmp_path / "f", files, labels, NOTE, "model", pieces(rows)) == rows.shape
    found = feature_files.load(tmp_path / "f")
    assert isinstance(found.features, np.memmap)
    np.testing.assert_array_equal(found.features, rows)
    assert found.files.tolist() == files.tolist()
    np.testing.assert_array_equal(found.labels.identity, labels.identity)
    np.testing.assert_array_equal(found.labels.camera, labels.camera)
    assert found.note == NOTE
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == ["features.npy", "table.npz"]
    feature_files.write(tmp_path / "f", files[:4], None, NOTE, "other", pieces(-rows))
    found = feature_files.load(tmp_path / "f")
    np.testing.assert_array_equal(found.features, -rows[:4])
    assert found.labels is None


def stopped(rows, after):
    """Pieces of one row that end with an interruption before row `after`."""

    def give(start, stop):
        for at in range(start, stop):
            if at == after:
                raise KeyboardInterrupt
            yield rows[at : at + 1]

    return give


def test_an_interrupted_extraction_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_files, "_EVERY", 3)
    rows, files, labels = table()
    with pytest.raises(KeyboardInterrupt):
        feature_files.write(tmp_path, files, labels, NOTE, "model", stopped(rows, 8))
    assert feature_files.is_feature_file(tmp_path)
    with pytest.raises(UserError, match="is not complete"):
        feature_files.load(tmp_path)
    with pytest.raises(UserError, match="other images or another model"):
        feature_files.write(tmp_path, files, labels, NOTE, "other", pieces(rows))
    with pytest.raises(UserError, match="other images or another model"):
        feature_files.write(tmp_path, files[:-1], labels, NOTE, "model", pieces(rows))
    begun = []
    go_on = pieces(rows)
    feature_files.write(
        tmp_path, files, labels, NOTE, "model", lambda start, stop: begun.append(start) or go_on(start, stop)
    )
    assert begun == [6]
    np.testing.assert_array_equal(feature_files.load(tmp_path).features, rows)


def test_an_extraction_that_lacks_its_last_step_alone(tmp_path, monkeypatch):
    rows, files, labels = table()
    with monkeypatch.context() as patch:
        patch.setattr(feature_files, "_wait", lambda what: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            feature_files.write(tmp_path, files, labels, NOTE, "model", pieces(rows))
    assert feature_files.write(tmp_path, files, labels, NOTE, "model", pieces(rows)) == rows.shape
    np.testing.assert_array_equal(feature_files.load(tmp_path).features, rows)


def test_features_stay_until_the_new_ones_are_complete(tmp_path):
    rows, files, labels = table()
    feature_files.write(tmp_path, files, labels, NOTE, "model", pieces(rows))
    (tmp_path / "progress_report.json").write_text("words")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        feature_files.write(tmp_path, files[:6], None, {}, "other", stopped(-rows, 3))
    assert before.items() <= {path.name: path.read_bytes() for path in tmp_path.iterdir()}.items()
    with pytest.raises(UserError, match=r"again, and it will go on, or delete features\.npy\.unfinished to keep those"):
        feature_files.load(tmp_path)
    feature_files.write(tmp_path, files[:6], None, {}, "other", pieces(-rows))
    stored = feature_files.load(tmp_path)
    np.testing.assert_array_equal(stored.features, -rows[:6])
    assert (len(stored.files), stored.labels) == (6, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features.npy", "progress_report.json", "table.npz"]


@pytest.mark.parametrize("step", range(5))
def test_a_kill_while_features_take_the_place_of_others(tmp_path, monkeypatch, step):
    """Between any two changes of names: what can be loaded is one set or the other, and the command goes on."""
    rows, files, labels = table()
    feature_files.write(tmp_path, files, labels, NOTE, "model", pieces(rows))
    done, real = [], {name: getattr(pathlib.Path, name) for name in ("replace", "unlink")}

    def counted(name):
        def act(path, *arguments, **options):
            if path.name.startswith(("features.npy", "table.npz.unfinished", "progress_0.json")) and done[:1]:
                if len(done) > step:
                    raise KeyboardInterrupt
                done.append(path.name)
            return real[name](path, *arguments, **options)

        return act

    with monkeypatch.context() as patch:
        patch.setattr(feature_files, "_wait", lambda what: done.append(what))
        for name in real:
            patch.setattr(pathlib.Path, name, counted(name))
        with contextlib.suppress(KeyboardInterrupt):
            feature_files.write(tmp_path, files[:6], None, {}, "other", pieces(-rows))
    unfinished = (tmp_path / "features.npy.unfinished").is_file()
    with pytest.raises(UserError, match="is not complete") if unfinished else contextlib.nullcontext():
        np.testing.assert_array_equal(feature_files.load(tmp_path).features, -rows[:6])
    feature_files.write(tmp_path, files[:6], None, {}, "other", pieces(-rows))
    np.testing.assert_array_equal(feature_files.load(tmp_path).features, -rows[:6])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features.npy", "table.npz"]


def test_files_that_are_none_are_named(tmp_path):
    (tmp_path / "f.npy").write_bytes(b"nothing")
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "folder" / "features.npy", np.ones((3, 2), np.float32))
    for name in ("f.npy", "folder"):
        with pytest.raises(UserError, match=f"{name} is not a feature file"):
            feature_files.load(tmp_path / name)
    rows, files, labels = table()
    feature_files.write(tmp_path / "short", files, labels, NOTE, "model", pieces(rows))
    np.save(tmp_path / "short" / "features.npy", rows[:5])
    with pytest.raises(UserError, match="labels"):
        feature_files.load(tmp_path / "short")
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(UserError, match="cannot write"):
        feature_files.write(tmp_path / "taken", files, labels, NOTE, "model", pieces(rows))


def stored(tmp_path):
    """A query file of three samples of the gallery, and the gallery as a file, a folder and bare features."""
    rows, files, labels = table()
    feature_files.save(tmp_path / "query.npz", feature_files.Features(rows[[5, 0, 9]], files[[5, 0, 9]], None, NOTE))
    feature_files.save(tmp_path / "gallery.npz", feature_files.Features(rows, files, labels, NOTE))
    feature_files.write(tmp_path / "gallery", files, labels, NOTE, "model", pieces(rows))
    np.save(tmp_path / "gallery.npy", rows)
    return rows, files


@pytest.mark.parametrize("name", ["matches.csv", "search.html", "figures/search_001.png"])
def test_only_what_a_search_wrote_is_overwritten(name, tmp_path, monkeypatch):
    stored(tmp_path)
    out = tmp_path / "out"
    arguments = ["--query", str(tmp_path / "query.npz"), "--gallery", str(tmp_path / "gallery"), "--out", str(out)]
    search.main(arguments)
    (out / "figures" / "mine.png").write_bytes(b"words")
    (out / "notes.txt").write_text("words")
    search.main(arguments)
    (out / name).write_bytes(b"words")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr(feature_files, "load", lambda _: 1 / 0)
    with pytest.raises(UserError, match=rf"{name} is not overwritten: it is no \w+"):
        search.main(arguments)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["gallery.npz", "gallery", "gallery.npy"])
def test_features_are_searched_without_a_model(name, tmp_path):
    rows, files = stored(tmp_path)
    out = tmp_path / "out"
    search.main(
        ["--query", str(tmp_path / "query.npz"), "--gallery", str(tmp_path / name), "--out", str(out), "--top", "2"]
        + ["--with_self"]
        + ["--resumable"] * (name == "gallery")
    )
    apart = np.square(rows[[5, 0, 9], None] - rows[None]).sum(-1)
    order = np.argsort(apart, axis=1)[:, :2]
    names = np.arange(10).astype(str) if name == "gallery.npy" else files
    assert matches(out) == [(files[q], names[g]) for q, row in zip((5, 0, 9), order, strict=True) for g in row]
    assert names[order[1, 1]] in (out / "search.html").read_text()
    assert not (out / "search.progress").exists()


def test_what_cannot_be_searched_is_named(tmp_path):
    stored(tmp_path)
    np.save(tmp_path / "wide.npy", np.ones((3, 5), np.float32))
    query = ["--query", str(tmp_path / "query.npz"), "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match="queries have 4 features and the gallery 5"):
        search.main([*query, "--gallery", str(tmp_path / "wide.npy")])
    with pytest.raises(UserError, match="name the model with --checkpoint"):
        search.main([*query, "--gallery", str(tmp_path)])
    assert not (tmp_path / "out").exists()


PROGRAM = """
import pathlib, sys
from mmreid_jax.training import distributed
distributed.start()
from mmreid_jax.commands import search
from mmreid_jax.retrieval import feature_files
from tests.retrieval.test_feature_files import NOTE, pieces, table
folder = pathlib.Path(sys.argv[1])
rows, files, labels = table()
feature_files.write(folder / "together", files, labels, NOTE, "model", pieces(rows))
distributed.start = lambda: None
sides = ["--query", str(folder / "query.npz"), "--gallery", str(folder / "together")]
search.main([*sides, "--out", str(folder / "out"), "--with_self"])
"""


@pytest.mark.slow
def test_two_processes_write_and_search_together(tmp_path):
    stored(tmp_path)
    run_two(PROGRAM, tmp_path)
    one = feature_files.load(tmp_path / "gallery")
    np.testing.assert_array_equal(feature_files.load(tmp_path / "together").features, one.features)
    query = feature_files.load(tmp_path / "query.npz")
    order = streamed.top_k(query.features, one.features, 10)[0]
    assert matches(tmp_path / "out") == [
        (name, one.files[g]) for name, row in zip(query.files, order, strict=True) for g in row
    ]
