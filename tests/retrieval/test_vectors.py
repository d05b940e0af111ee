"""Features for vector search: what is written is what other programs read."""

from __future__ import annotations

import csv
import os

import numpy as np
import pyarrow.parquet
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import feature_files, vectors
from mmreid_jax.retrieval.metrics import Labels
from tests import limits

FEATURES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
UNIT = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
FILES = np.array([f"a,{i}.jpg" for i in range(5)])
LABELS = Labels(np.arange(5), np.array([0, 1, 0, 1, 2]), np.zeros(5, int))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float16", 1e-3)])
def test_parquet(dtype, tolerance, tmp_path):
    path = tmp_path / "new" / "f.parquet"
    vectors.write(path, FEATURES, FILES, LABELS, "rgb", {"dataset": "x"}, dtype)
    table = pyarrow.parquet.read_table(path)
    assert table.column_names == [*vectors.COLUMNS, "vector"]
    assert table["id"].to_pylist() == list(range(5))
    assert table["camera"].to_pylist() == [0, 1, 0, 1, 2]
    assert table["modality"].to_pylist() == ["rgb"] * 5
    assert str(table["vector"].type.value_type) == {"float32": "float", "float16": "halffloat"}[dtype]
    stored = feature_files.load(path)
    np.testing.assert_allclose(stored.features, UNIT, atol=tolerance)
    assert stored.features.dtype == dtype
    np.testing.assert_array_equal(stored.files, FILES)
    np.testing.assert_array_equal(stored.labels.identity, np.arange(5))
    assert stored.note == {"dataset": "x"}


def test_npy_and_its_table(tmp_path):
    path = tmp_path / "f.npy"
    vectors.write(path, FEATURES, FILES, None, "rgb,nir", {}, "float16")
    np.testing.assert_allclose(np.load(path), UNIT, atol=1e-3)
    with (tmp_path / "f.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == FILES.tolist()
    assert {(row["camera"], row["identity"], row["modality"]) for row in rows} == {("-1", "-1", "rgb,nir")}
    stored = feature_files.load(path)
    np.testing.assert_array_equal(stored.files, FILES)
    assert stored.labels is None
    vectors.write(path, FEATURES, FILES, LABELS, "rgb", {})
    np.testing.assert_array_equal(feature_files.load(path).labels.camera, LABELS.camera)


def test_the_table_beside_an_array_must_belong_to_it(tmp_path):
    path = tmp_path / "f.npy"
    vectors.write(path, FEATURES, FILES, None, "rgb", {})
    table = path.with_suffix(".csv")
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:-1]))
    with pytest.raises(UserError, match=r"\[5, 3\] and \[4\]"):
        feature_files.load(path)
    table.write_text("\n".join([*lines[:-1], "4,a.jpg"]))
    with pytest.raises(UserError, match="damaged"):
        feature_files.load(path)
    # Somebody else's says nothing of it.
    table.write_text("name\n1\n")
    assert feature_files.load(path).files.tolist() == ["0", "1", "2", "3", "4"]


def test_tables_of_others_are_read_and_not_overwritten(tmp_path):
    foreign = pyarrow.table({"vector": pyarrow.FixedSizeListArray.from_arrays(FEATURES.reshape(-1), 3)})
    pyarrow.parquet.write_table(foreign, tmp_path / "theirs.parquet")
    np.testing.assert_array_equal(feature_files.load(tmp_path / "theirs.parquet").features, FEATURES)
    np.save(tmp_path / "theirs.npy", FEATURES)
    for name in ("theirs.parquet", "theirs.npy"):
        with pytest.raises(UserError, match="not overwritten"):
            vectors.check_target(tmp_path / name)
    for name in ("ours.parquet", "ours.npy"):
        vectors.write(tmp_path / name, FEATURES, FILES, None, "rgb", {})
        vectors.check_target(tmp_path / name)


@pytest.mark.parametrize("columns", [{"file": ["a"]}, {"vector": ["words"]}, {"vector": [[1.0], [1.0, 2.0]]}])
def test_tables_without_vectors_are_a_line(columns, tmp_path):
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"x\.parquet"):
        feature_files.load(tmp_path / "x.parquet")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(UserError, match=r"x\.parquet"):
        feature_files.load(tmp_path / "x.parquet")


NAMES = np.array(["=cmd()|x.png", "+1.png", os.fsdecode(b"\xff\xfe.png"), "a\nb.png", "\tt.png"])


def test_names_of_any_kind(tmp_path):
    vectors.write(tmp_path / "f.npy", FEATURES, NAMES, None, "rgb", {})
    with (tmp_path / "f.csv").open(newline="", encoding="utf-8") as file:
        named = [row["file"] for row in csv.DictReader(file)]
    assert named == ["./=cmd()|x.png", "./+1.png", r"\udcff\udcfe.png", "a\nb.png", "./\tt.png"]
    vectors.write(tmp_path / "f.parquet", FEATURES, NAMES, None, "rgb", {})
    expected = [*NAMES.tolist()[:2], r"\udcff\udcfe.png", *NAMES.tolist()[3:]]
    assert feature_files.load(tmp_path / "f.parquet").files.tolist() == expected


def test_an_array_and_its_table_are_written_together(tmp_path):
    """A table of five beside an array of three would name the wrong images."""
    vectors.write(tmp_path / "f.npy", FEATURES[:3], FILES[:3], None, "rgb", {})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with limits.files_of_at_most(180), pytest.raises(OSError):
        vectors.write(tmp_path / "f.npy", np.tile(FEATURES, (9, 1)), np.tile(FILES, 9), None, "rgb", {})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
