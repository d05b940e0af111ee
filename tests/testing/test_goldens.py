"""The loader of golden files and its comparison."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmreid_jax.testing import goldens


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "b.json").write_text(json.dumps({"seed": 3}))
    (tmp_path / "suite" / "a.json").write_text(json.dumps({"seed": 4}))
    np.savez(tmp_path / "suite" / "a.npz", x=np.arange(3))
    (tmp_path / "recipe.py").write_text("def array():\n    return 'mine'\n")
    monkeypatch.setenv("MMREID_GOLDENS", str(tmp_path))
    return tmp_path


class TestFolder:
    def test_environment_decides(self, folder):
        assert goldens.folder() == folder
        assert goldens.recipe().array() == "mine"

    def test_else_that_of_the_repository(self, monkeypatch):
        monkeypatch.delenv("MMREID_GOLDENS", raising=False)
        assert goldens.folder().parts[-2:] == ("tests", "goldens")
        assert goldens.recipe().array(1, "a", (2, 3)).shape == (2, 3)

    def test_cases(self, folder):
        assert [path.stem for path in goldens.cases("suite")] == ["a", "b"]
        assert goldens.cases("nothing") == []

    def test_case(self, folder):
        first, second = map(goldens.load, goldens.cases("suite"))
        assert (first.name, first.json) == ("a", {"seed": 4})
        np.testing.assert_array_equal(first.arrays["x"], [0, 1, 2])
        assert second.arrays == {}


class TestClose:
    def test_equal(self):
        goldens.close([1.0, -2.0, np.inf, np.nan], [1.0, -2.0, np.inf, np.nan])
        goldens.close(np.zeros((0, 2)), np.zeros((0, 2)))
        goldens.close([1, 2], [1, 2])

    def test_relative_to_the_largest(self):
        goldens.close([100.0, 0.05], [100.0, 0.0], 1e-3)
        with pytest.raises(AssertionError, match=r"feature: largest error 0\.2, allowed 0\.1 .* value 100\)"):
            goldens.close([100.0, 0.2], [100.0, 0.0], 1e-3, "feature")

    @pytest.mark.parametrize(
        ("actual", "expected", "words"),
        [
            ([1.0], [1.0, 2.0], "shape"),
            ([1, 2], [1, 3], "1 of 2 values differ"),
            ([np.nan, 0], [1.0, 0], "not finite"),
            ([1.0, 0], [np.inf, 0], "not finite"),
            ([np.inf], [-np.inf], "not finite"),
            ([1e-30], [0.0], "largest error"),
            ([True], [False], "differ"),
        ],
    )
    def test_different(self, actual, expected, words):
        with pytest.raises(AssertionError, match=words):
            goldens.close(actual, expected)
