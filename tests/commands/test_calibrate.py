"""The threshold of a model: measured on a data set of one's own, stored, and used by search."""

from __future__ import annotations

import dataclasses
import re

import jax
import numpy as np
import pytest

from mmreid_jax import model
from mmreid_jax.commands import calibrate, search
from mmreid_jax.datasets.own import making
from mmreid_jax.errors import UserError
from mmreid_jax.methods import base
from mmreid_jax.retrieval import metrics, thresholds
from mmreid_jax.retrieval.protocols import GENERAL
from mmreid_jax.testing import tiny
from mmreid_jax.training import checkpoints
from tests.commands.test_search import matches, weights
from tests.datasets.own import made


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Untrained models of one spectrum and of two, in workdirs, and a small data set for each."""
    root = tmp_path_factory.mktemp("calibrate")
    people = made.people(8, cameras=2, shots=3)
    made.write(root / "shop", [f"{p}/c{c}_{s}.jpg" for p, c, s in people])
    made.write(root / "gate", [f"{'rgb' if c == 1 else 'ir'}/{p}/c{c}_{s}.jpg" for p, c, s in people])
    for name, modalities in (("shop", ("rgb",)), ("gate", ("rgb", "nir"))):
        source = making.Source(root / name, pattern="{identity}/c{camera}_{index}")
        making.make(source, name, root / "data")
        config = tiny.config(
            "agw",
            model__shared_from=int(name == "gate"),
            data__dataset=f"own:{name}",
            data__data_dir=str(root / "data"),
        )
        facts = base.DataFacts(4, 2, 1, modalities)
        shapes = jax.eval_shape(base.build(config, facts).init, jax.random.key(0))
        fresh = jax.tree_util.tree_map_with_path(weights, shapes)
        checkpoints.keep_copy(root / f"run_{name}", fresh, config, facts)
    return root


@pytest.mark.slow(short=True)
def test_one_spectrum(place, tmp_path, capsys):
    run = place / "run_shop"
    calibrate.main(["--checkpoint", str(run), "--far", "0.3"])
    (stored,) = thresholds.read(run)
    assert stored.describe() in capsys.readouterr().out
    assert (stored.query, stored.gallery, stored.dataset, stored.wanted) == (("rgb",), ("rgb",), "own:shop", 0.3)
    assert stored.false_alarms <= 0.3
    assert stored.false_alarms_interval[0] <= stored.false_alarms <= stored.false_alarms_interval[1]
    assert (run / "figures" / "threshold_rgb_to_rgb.png").is_file()
    # By hand: of every query the nearest wrong match.
    (result, *_) = model.Model(model.Extractor(run)).evaluate()
    wrong = np.where(result.query.identity[:, None] != result.gallery.identity, result.distances, np.inf).min(axis=1)
    assert stored.false_alarms == pytest.approx(np.mean(wrong <= stored.distance))


@pytest.mark.slow(short=True)
def test_search_answers_nobody(place, tmp_path, capsys):
    """By the stored threshold, which a flag replaces."""
    run, query, gallery = place / "run_shop", place / "shop" / "1", place / "shop" / "2"
    flags = ["--checkpoint", str(run), "--query", str(query), "--gallery", str(gallery), "--modality", "rgb"]

    def answers(out, *more):
        capsys.readouterr()
        search.main([*flags, "--out", str(tmp_path / out), *more])
        printed = capsys.readouterr().out
        lines = [line for line in printed.splitlines() if re.match(r"c\d_\d\.jpg: ", line)]
        nearest = [float(row["distance"]) for row in matches(tmp_path / out) if row["rank"] == "1"]
        assert len(lines) == len(nearest) == 6
        return printed, ["nobody" in line for line in lines], nearest

    calibrate.main(["--checkpoint", str(run), "--far", "0.3"])
    (stored,) = thresholds.read(run)
    _, _, nearest = answers("first")
    between = float(np.mean(np.sort(nearest)[2:4]))
    thresholds.write(run, [dataclasses.replace(stored, distance=between)])
    printed, nobody, nearest = answers("second")
    assert f"threshold of {run / thresholds.FILE}" in printed
    assert nobody == [value > between for value in nearest]
    assert sum(nobody) == 3
    assert "Nobody in the gallery matches" in (tmp_path / "second" / "search.html").read_text()
    assert not any(answers("third", "--threshold", "9")[1])
    # One of the other checkpoint, or of other modalities, is not taken.
    for change in ({"which": "last"}, {"gallery": ("nir",)}):
        thresholds.write(run, [dataclasses.replace(stored, distance=0.0, **change)])
        printed, nobody, _ = answers("fourth")
        assert "threshold of" not in printed
        assert not any(nobody)


@pytest.mark.slow(short=True)
def test_both_directions_of_two_spectra(place):
    calibrate.main(["--checkpoint", str(place / "run_gate"), "--far", "0.5"])
    assert [(each.query, each.gallery) for each in thresholds.read(place / "run_gate")] == [
        (("nir",), ("rgb",)),
        (("rgb",), ("nir",)),
    ]


@pytest.mark.parametrize("far", ["0", "1", "-1", "nan"])
def test_a_rate_that_is_none(far, place):
    with pytest.raises(UserError, match="--far"):
        calibrate.main(["--checkpoint", str(place / "run_shop"), "--far", far])


def test_where_no_threshold_is_low_enough():
    # The nearest pair of all is of different people.
    labels = metrics.Labels(np.array([1, 2]), np.zeros(2, int), np.zeros(2, int))
    searched = calibrate.Searched(np.array([[0.5, 0.1], [0.2, 0.6]]), labels, labels, GENERAL["plain"], "x")
    with pytest.raises(UserError, match=r"no threshold keeps false alarms at 0\.01"):
        calibrate.measure(searched, 0.01)


def test_labelled_features_of_any_model(tmp_path, capsys):
    """One file searches itself without its own samples; two are queries and gallery. Against distances by hand."""
    generator = np.random.default_rng(0)
    people = np.repeat(np.arange(12), 4)
    features = (generator.normal(size=(12, 16))[people] + generator.normal(size=(48, 16))).astype(np.float32)
    cameras = np.tile(np.arange(4), 12)
    np.savez(tmp_path / "all.npz", features=features, identity=people, camera=cameras)
    calibrate.main(["--features", str(tmp_path / "all.npz"), "--far", "0.1", "--out", str(tmp_path / "out")])
    (stored,) = thresholds.read(tmp_path / "out")
    long = features / np.linalg.norm(features, axis=1, keepdims=True)
    squared = np.square(long[:, None] - long[None]).sum(-1)
    same = people[:, None] == people
    wrong = np.where(same, np.inf, squared).min(axis=1)
    right = np.where(same & ~np.eye(48, dtype=bool), squared, np.inf).min(axis=1)
    assert stored.false_alarms == np.mean(wrong <= stored.distance + 1e-6) <= 0.1
    assert stored.found == np.mean((right <= stored.distance + 1e-6) & (right < wrong))
    assert (tmp_path / "out" / "figures" / "threshold.png").is_file()
    assert "which search uses" not in capsys.readouterr().out
    for name, rows in (("query", cameras == 0), ("gallery", cameras > 0)):
        np.savez(tmp_path / f"{name}.npz", features=features[rows], identity=people[rows], camera=cameras[rows])
    flags = ["--features", str(tmp_path / "query.npz"), "--gallery", str(tmp_path / "gallery.npz")]
    calibrate.main([*flags, "--far", "0.1", "--out", str(tmp_path / "out")])
    (stored,) = thresholds.read(tmp_path / "out")
    assert (stored.queries, stored.gallery_size) == (12, 36)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--checkpoint"),
        (["--features", "a.npz", "--checkpoint", "b"], "one of both"),
        (["--features", "a.npz"], "--out"),
        (["--features", "unlabelled.npz", "--out", "out"], "labelled features alone"),
    ],
)
def test_flags_that_do_not_go_together(flags, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "unlabelled.npz", features=np.ones((3, 4), np.float32))
    with pytest.raises(UserError, match=said):
        calibrate.main(flags)
