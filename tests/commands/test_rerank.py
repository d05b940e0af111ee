"""The re-ranking command on feature files."""

import csv
import dataclasses
import json
import re
import warnings

import numpy as np
import pytest

from mmreid_jax import datasets
from mmreid_jax.commands import rerank
from mmreid_jax.datasets import folder
from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import distances, feature_files, metrics
from mmreid_jax.retrieval.rerank import k_reciprocal

RNG = np.random.default_rng(0)
CENTRES = 1.2 * RNG.normal(size=(9, 12))
NOTE = {
    "dataset": "rgbnt201",
    "protocol": "",
    "distance": "",
    "rerank": {"k1": 9, "k2": 3, "lambda_value": 0.4, "distance": "squared_euclidean"},
}


def features(count, labelled=True, note=NOTE):
    identity = np.arange(count) % 9
    rows = (CENTRES[identity] + RNG.normal(size=(count, 12))).astype(np.float32)
    labels = metrics.Labels(identity, np.arange(count) // 9 % 3, np.zeros(count, int)) if labelled else None
    return feature_files.Features(rows, np.array([f"{i:03d}.jpg" for i in range(count)]), labels, note)


@pytest.fixture
def files(tmp_path):
    """Query and gallery file, and what is in them."""
    sides = {"query": features(20), "gallery": features(90)}
    for name, side in sides.items():
        feature_files.save(tmp_path / f"{name}.npz", side)
    return tmp_path / "query.npz", tmp_path / "gallery.npz", *sides.values()


def printed(capsys):
    """Row name -> mAP of the table on the screen."""
    lines = capsys.readouterr().out.splitlines()
    pattern = r"(as they are|re-ranked)\D+([\d.]+)"
    return {match[1]: float(match[2]) for line in lines if (match := re.match(pattern, line)) and "takes" not in line}


def test_feature_files_come_back(tmp_path):
    for side in (features(7), features(7, labelled=False)):
        feature_files.save(tmp_path / "f.npz", side)
        back = feature_files.load(tmp_path / "f.npz")
        np.testing.assert_array_equal(back.features, side.features)
        np.testing.assert_array_equal(back.files, side.files)
        assert back.note == side.note
        assert (back.labels is None) == (side.labels is None)
    feature_files.save(tmp_path / "f.npz", features(7))
    np.testing.assert_array_equal(feature_files.load(tmp_path / "f.npz").labels.camera, features(7).labels.camera)


def test_scores_with_the_options_of_the_models_config(files, capsys):
    at_query, at_gallery, query, gallery = files
    rerank.main([str(at_query), str(at_gallery)])
    protocol = datasets.protocol("rgbnt")
    apart = distances.squared_euclidean(query.features, gallery.features)
    reranked = k_reciprocal(query.features, gallery.features, 9, 3, 0.4, "squared_euclidean")
    shown = printed(capsys)
    for name, values in (("as they are", apart), ("re-ranked", reranked)):
        expected = metrics.evaluate(values, query.labels, gallery.labels, protocol).mAP
        assert shown[name] == pytest.approx(100 * expected, abs=0.051)
    assert shown["re-ranked"] > shown["as they are"]


def test_flags_win_and_one_file_is_both_sides(files, capsys):
    _, at_gallery, _, gallery = files
    flags = "--k1 5 --k2 1 --lambda 0.8 --distance cosine --rerank_distance cosine --protocol plain"
    rerank.main([str(at_gallery), *flags.split()])
    apart = distances.cosine(gallery.features, gallery.features)
    reranked = k_reciprocal(gallery.features, gallery.features, 5, 1, 0.8, "cosine")
    shown = printed(capsys)
    for name, values in (("as they are", apart), ("re-ranked", reranked)):
        expected = metrics.evaluate(values, gallery.labels, gallery.labels, datasets.protocol("plain")).mAP
        assert shown[name] == pytest.approx(100 * expected, abs=0.051)


def test_matches_without_labels(tmp_path, capsys):
    side = features(40, labelled=False)
    feature_files.save(tmp_path / "f.npz", side)
    rerank.main([str(tmp_path / "f.npz"), "--matches", str(tmp_path / "out" / "m.csv"), "--top", "4"])
    assert "mAP" not in capsys.readouterr().out
    with (tmp_path / "out" / "m.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40 * 4
    reranked = k_reciprocal(side.features, side.features, 9, 3, 0.4, "squared_euclidean")
    nearest = side.files[distances.nearest(reranked, 5)[0]].tolist()
    # A sample is no match of its own.
    assert rows[0]["query"] in nearest
    assert [row["match"] for row in rows[:4]] == [name for name in nearest if name != rows[0]["query"]][:4]


def test_junk_does_not_count(files, tmp_path, capsys):
    at_query, at_gallery, _, gallery = files
    rerank.main([str(at_query), str(at_gallery)])
    clean = capsys.readouterr().out
    rows = np.concatenate([gallery.features, np.zeros((5, 12), np.float32)])
    identity = np.concatenate([gallery.labels.identity, np.full(5, -1)])
    zeros = np.zeros(len(rows), int)
    camera = np.concatenate([gallery.labels.camera, zeros[:5]])
    feature_files.save(
        tmp_path / "junk.npz",
        feature_files.Features(rows, zeros.astype(str), metrics.Labels(identity, camera, zeros), NOTE),
    )
    rerank.main([str(at_query), str(tmp_path / "junk.npz")])
    assert capsys.readouterr().out == clean


def test_files_of_other_programs(tmp_path, capsys):
    side = features(60)
    np.savez(tmp_path / "plain.npz", features=side.features, identity=side.labels.identity, camera=side.labels.camera)
    rerank.main([str(tmp_path / "plain.npz"), "--k1", "9", "--k2", "3"])
    assert set(printed(capsys)) == {"as they are", "re-ranked"}


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"files": np.array(["a"])}, "not a feature file"),
        ({"features": np.ones((3, 2)), "files": np.array(["a"])}, r"they are \[3, 2\] and \[1\]"),
        ({"features": np.full((3, 2), np.nan)}, "not finite"),
        ({"features": np.ones((60, 2), np.float32)}, "no identities and cameras to score with"),
        ({"features": np.ones((3, 2), "f4"), "identity": np.arange(3), "camera": np.arange(3)}, "needs more than"),
    ],
)
def test_files_that_do_not_do(arrays, said, tmp_path):
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(UserError, match=said):
        rerank.main([str(tmp_path / "f.npz")])


def test_tables_of_others_are_not_overwritten(files, tmp_path, monkeypatch):
    at_query, at_gallery, *_ = files
    table = tmp_path / "m.csv"
    rerank.main([str(at_query), str(at_gallery), "--matches", str(table)])
    rerank.main([str(at_query), str(at_gallery), "--matches", str(table)])
    (tmp_path / "link.csv").symlink_to(table)
    table.write_text("my,own,words\n")
    # Found out before anything is read.
    monkeypatch.setattr(rerank, "opened", lambda _: 1 / 0)
    for path in (table, tmp_path / "link.csv", tmp_path):
        with pytest.raises(UserError, match="is not overwritten"):
            rerank.main([str(at_query), str(at_gallery), "--matches", str(path)])
    assert table.read_text() == "my,own,words\n"


def test_samples_that_are_all_alike(tmp_path, capsys):
    side = features(40)
    feature_files.save(tmp_path / "f.npz", dataclasses.replace(side, features=np.ones_like(side.features)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rerank.main([str(tmp_path / "f.npz")])
    assert set(printed(capsys)) == {"as they are", "re-ranked"}


def test_a_gallery_of_junk_alone(tmp_path):
    side = features(40)
    labels = dataclasses.replace(side.labels, identity=np.full(40, -1))
    feature_files.save(tmp_path / "f.npz", dataclasses.replace(side, labels=labels))
    with pytest.raises(UserError, match="all 40 images have the identity -1"):
        rerank.main([str(tmp_path / "f.npz")])


def test_a_map_of_features_is_looked_at(tmp_path):
    rows = features(40).features
    rows[7, 3] = np.nan
    np.save(tmp_path / "f.npy", rows)
    with pytest.raises(UserError, match=r"some features are not finite: those of 1 of 40 images, first of 7 \(row 7\)"):
        rerank.main([str(tmp_path / "f.npy"), "--matches", str(tmp_path / "m.csv")])


def test_other_mistakes(files, tmp_path):
    at_query, at_gallery, query, _ = files
    (tmp_path / "text.npz").write_text("no archive")
    for arguments, said in (
        ([str(tmp_path / "absent.npz")], "not a feature file"),
        ([str(tmp_path / "text.npz")], "not a feature file"),
        ([str(at_query), "--protocol", "rgbn"], "unknown protocol 'rgbn'"),
        ([str(at_query), str(at_gallery), "--top", "0"], "--top is 0"),
    ):
        with pytest.raises(UserError, match=said):
            rerank.main(arguments)
    narrow = feature_files.Features(query.features[:, :5], query.files, query.labels, json.loads(json.dumps(NOTE)))
    feature_files.save(tmp_path / "narrow.npz", narrow)
    with pytest.raises(UserError, match=r"\[20, 5\] and \[90, 12\]"):
        rerank.main([str(tmp_path / "narrow.npz"), str(at_gallery)])


def test_labels_are_read_off_file_names(tmp_path):
    for name in ("000258_cam1_0_01.jpg", "000003_cam2_1_00.jpg"):
        (tmp_path / name).touch()
    records, _ = folder.open_folder(tmp_path, ("rgb",))
    labelled = folder.with_labels(records, "rgbnt201")
    assert labelled.identity.tolist() == [3, 258]
    assert labelled.camera.tolist() == [1, 0]
    assert labelled.scene.tolist() == [1, 0]
    (tmp_path / "holiday.jpg").touch()
    records, _ = folder.open_folder(tmp_path, ("rgb",))
    assert folder.with_labels(records, "rgbnt201") is None
