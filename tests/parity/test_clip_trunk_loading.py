"""CLIP's weights as DeMo's and MDReID's trunks start from them against the authors' loaders."""

from __future__ import annotations

import clip_trunk_runs
import numpy as np
import pytest

from mmreid_jax.convert import clip as clip_layout
from mmreid_jax.convert import layout as layouts
from mmreid_jax.testing import goldens

GOLDENS = [goldens.load(path) for path in clip_trunk_runs.of_kind("clip_load", "demo_moe", "mdreid")]
CASES = [
    pytest.param(golden, grid, id=f"{golden.json['suite']}-{golden.name}-{grid}")
    for golden in GOLDENS
    for grid in golden.json["grids"]
]
HEAD = 64
# Of float32 weights, as the README of the suites has it.
FLOAT32 = 1e-7


@pytest.mark.parametrize(("golden", "name"), CASES)
def test_loading(golden, name):
    case, stored = golden.json, {key.partition("/")[2]: x for key, x in golden.arrays.items() if key.startswith(name)}
    grid = tuple(case["grids"][name])
    tokens = int(stored["shape"][0]) - grid[0] * grid[1]
    entries = dict(goldens.recipe().state_dict(case["seed"], case["state_dict"]))
    loaded, report = layouts.import_state(clip_layout.image_only(grid, class_tokens=tokens), entries)
    assert set(report.used) | set(report.dropped) == set(entries)
    params = loaded["params"]
    table = params["pos_embed"][0]
    found = {
        "shape": np.array(table.shape),
        "positional_embedding_head": table[:, : stored["positional_embedding_head"].shape[1]],
        "positional_embedding_norms": np.linalg.norm(table.astype(np.float64), axis=1),
        "class_embedding": params["cls_token"].reshape(-1)[:HEAD],
        "proj": params["proj"].reshape(-1)[:HEAD],
        "last_block_in_proj_weight": params["blocks"]["attn"]["qkv"]["kernel"][-1].T.reshape(-1)[:HEAD],
        # There is one parameter, however many tokens.
        "tokens_are_one_parameter": np.array(1),
    }
    for key, expected in stored.items():
        assert found[key].shape == expected.shape, key
        np.testing.assert_allclose(found[key], expected, rtol=FLOAT32, atol=FLOAT32, err_msg=key)
