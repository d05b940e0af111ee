"""RegDB's index files as the builder reads them, against what the authors' readers make of the same lines."""

from __future__ import annotations

import re

import pytest
import vi_kinds

from mmreid_jax.datasets import disk, regdb

GOLDENS = [golden for golden in vi_kinds.of_kind("vi_protocols", "gallery") if "regdb" in golden.json]
LISTS = [
    pytest.param(golden, key, id=key)
    for golden in GOLDENS
    for key in golden.json["regdb"]
    if re.fullmatch(r"(train|test)_(visible|thermal)", key)
]
SPLITS = {"test_visible": "query", "test_thermal": "gallery"}


@pytest.fixture
def root(request, tmp_path):
    """A copy of RegDB that has the lines of a golden file, and the images that they name."""
    facts = request.getfixturevalue("golden").json["regdb"]
    (tmp_path / "idx").mkdir()
    for modality in ("visible", "thermal"):
        lines = facts[f"lines_{modality}"]
        for part in ("train", "test"):
            (tmp_path / "idx" / f"{part}_{modality}_1.txt").write_text("".join(f"{line}\n" for line in lines))
        for line in lines:
            image = tmp_path / line.split(" ")[0]
            image.parent.mkdir(parents=True, exist_ok=True)
            image.touch()
    return tmp_path


@pytest.mark.parametrize(("golden", "key"), LISTS)
def test_lines(golden, key, root):
    expected = golden.json["regdb"][key]
    assert set(expected) <= {"paths", "labels", "paths_tvi", "labels_tvi"}
    given = golden.json["regdb"]["root_given_with_trailing_slash"]
    rows = disk.listed_images(regdb.folders(1), root, f"idx/{key}_1.txt")
    # The authors' readers put the root before test paths, some of them with two slashes.
    for paths in (expected[name] for name in ("paths", "paths_tvi") if name in expected):
        assert [file for file, _ in rows] == [path.removeprefix(given).lstrip("/") for path in paths]
    assert [label for _, label in rows] == expected["labels"]
    if "labels_tvi" in expected:
        samples = regdb.list_split(regdb.folders(1), root, SPLITS[key])
        assert [sample.labels.identity for sample in samples] == expected["labels_tvi"]
        assert [sample.file for sample in samples] == [file for file, _ in rows]


@pytest.mark.parametrize("golden", GOLDENS)
def test_nothing_is_left_out(golden):
    known = {"lines_visible", "lines_thermal", "root_given_with_trailing_slash"}
    assert set(golden.json["regdb"]) == known | {param.values[1] for param in LISTS}
