"""Reading checkpoint files written by PyTorch: one test per file of the suite ``torch_files``."""

from __future__ import annotations

import functools
import json
import pathlib
import tempfile

import numpy as np
import pytest

from mmreid_jax.convert import torch_file
from mmreid_jax.errors import UserError
from mmreid_jax.testing import goldens

FOLDER = goldens.folder() / "torch_files"
INDEX = FOLDER / "cases.json"
CASES = json.loads(INDEX.read_text())["cases"] if INDEX.exists() else []


@functools.cache
def expected():
    with np.load(FOLDER / "expected.npz") as stored:
        return dict(stored)


@pytest.fixture(autouse=True)
def nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    for folder in (tmp_path, FOLDER, pathlib.Path(tempfile.gettempdir()), pathlib.Path(__file__).parents[2]):
        assert not (folder / "mmreid_pwned").exists()


def renamed(name):
    """The name without the prefixes that the reader removes."""
    return name.removeprefix("module.")


@pytest.mark.parametrize("case", [case for case in CASES if case["loads"]], ids=lambda case: case["file"])
def test_loads(case):
    found = torch_file.state_dict(FOLDER / case["file"])
    assert found.under == case["under"]
    assert list(found.entries) == [renamed(name) for name in case["keys"]]
    for name in case["keys"]:
        actual, wanted = found.entries[renamed(name)], expected()[f"{case['file']}/{name}"]
        assert actual.dtype == wanted.dtype, name
        assert actual.shape == wanted.shape, name
        np.testing.assert_array_equal(actual, wanted, err_msg=name)


@pytest.mark.parametrize("case", [case for case in CASES if not case["loads"]], ids=lambda case: case["file"])
def test_is_refused_in_one_line(case):
    path = FOLDER / case["file"]
    with pytest.raises(UserError) as refused:
        torch_file.state_dict(path)
    line = str(refused.value)
    assert "\n" not in line
    assert case["file"] in line
    why = case["why"]
    for promise, kept in {
        "whole module": "whole module" in line and "state_dict is needed" in line,
        "nothing is executed": "nothing in a file is executed" in line,
        "with its size": f"{path.stat().st_size:,} bytes" in line,
        "damaged": "damaged" in line,
        "first bytes": repr(path.read_bytes()[:8])[:-1] in line,
        "empty": "empty" in line,
        "names the tensor": any(f": {name}: " in line for name in names_of_others()),
    }.items():
        assert kept or promise not in why, f"{promise}: {line}"


def names_of_others():
    """Tensor names of the files that load: the damaged ones are copies of them."""
    return {name for case in CASES if case["loads"] for name in case["keys"]}
