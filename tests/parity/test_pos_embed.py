"""Resized position tables against PyTorch's: every case of ``htt/pos_embed.json`` and whatever else is of its kind."""

from __future__ import annotations

import numpy as np
import pytest

from mmreid_jax.convert import vit
from mmreid_jax.testing import goldens

FILES = [path for path in goldens.cases("htt") if goldens.load(path).json.get("case") == "pos_embed_resize"]
LANES = 8
CASES = [(path, name) for path in FILES for name in goldens.load(path).json["cases"]]


@pytest.fixture(params=CASES, ids=lambda case: case[1])
def case(request):
    """(golden file, name, float32 table, grid wanted)."""
    path, name = request.param
    golden = goldens.load(path)
    spec = golden.json["cases"][name]
    table = goldens.recipe().array(golden.json["seed"], spec["input"]["key"], spec["input"]["shape"])
    return golden, name, table, tuple(spec["new_grid"])


def test_float32_to_the_bit(case):
    golden, name, table, grid = case
    resized = vit.resize_position_table(table, grid)
    assert resized.dtype == np.float32
    # PyTorch works on eight channels at a time, and rounds what is left of them once more.
    whole = table.shape[-1] // LANES * LANES
    np.testing.assert_array_equal(resized[..., :whole], golden.arrays[name][..., :whole])
    goldens.close(resized, golden.arrays[name], 1e-6, name)


def test_float64(case):
    golden, name, table, grid = case
    resized = vit.resize_position_table(table.astype(np.float64), grid)
    assert resized.dtype == np.float64
    goldens.close(resized, golden.arrays[f"{name}__f64"], 1e-12, name)


def test_import_resizes(case):
    golden, name, table, grid = case
    entries, notes = vit.layout(grid).prepare({"pos_embed": table})
    goldens.close(entries["pos_embed"], golden.arrays[name], 1e-6, name)
    assert bool(notes) == (golden.arrays[name].shape != table.shape)
