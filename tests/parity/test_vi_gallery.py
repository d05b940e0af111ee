"""Queries and drawn galleries of SYSU-MM01 and LLCM against the lists of the authors' code."""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest
import vi_kinds

from mmreid_jax import datasets
from mmreid_jax.retrieval import galleries

GOLDENS = vi_kinds.of_kind("vi_protocols", "gallery")
LISTS = [
    pytest.param(golden, key, id=key)
    for golden in GOLDENS
    for key in golden.arrays
    if not key.endswith(("_pids", "_cams"))
]
SYSU_QUERIES = (2, 5)
PATHS = {"sysu": r"cam(\d+)/(\d+)/", "llcm": r"test_(?:vis|nir)/cam(\d+)/(\d+)/"}


def table_of(golden, dataset, marker=""):
    """Identity, camera and file of the test images whose path contains `marker`, and their positions in the list."""
    files = golden.json[dataset]["files"]
    (listed,) = (value for key, value in golden.json[dataset].items() if key.endswith("test_id.txt"))
    wanted = {int(number) for number in listed.split(",")}
    parts = [re.match(PATHS[dataset], file).groups() for file in files]
    rows = [i for i, (_, name) in enumerate(parts) if int(name) in wanted and marker in files[i]]
    camera, identity = (np.array([int(parts[i][k]) for i in rows]) for k in (0, 1))
    table = SimpleNamespace(identity=identity, camera=camera - 1, file=np.array([files[i] for i in rows]))
    return table, np.array(rows)


def drawn(key, golden):
    """The positions that a key of the file asks for."""
    dataset, kind, *rest = key.split("/")
    if dataset == "llcm":
        pool, rows = table_of(golden, "llcm", f"test_{rest[0]}/")
        protocol = datasets.protocol("llcm_ir_to_vis" if rest[0] == "vis" else "llcm_vis_to_ir")
        if kind == "query":
            return rows[galleries.listed(pool, protocol.gallery.cameras)]
    else:
        pool, rows = table_of(golden, "sysu")
        if kind == "query":
            return rows[galleries.listed(pool, SYSU_QUERIES)]
        shots = rest.pop(0) if kind == "hc_stream" else {"single": "single"}.get(kind, "multi")
        suffix = {"hc_stream": "_hetero_center"}.get(kind, "")
        protocol = datasets.protocol(f"sysu_{rest[0]}_{shots}{suffix}")
    draw = protocol.gallery
    if match := re.fullmatch(r"multi_sample(\d+)", kind):
        draw = dataclasses.replace(draw, shots=int(match[1]))
    elif match := re.fullmatch(r"tvi_multi_npseed(\d+)", kind):
        draw = dataclasses.replace(draw, draw="stream", seed=int(match[1]), discarded=0)
    else:
        assert kind in ("single", "hc_stream"), f"draw of unknown kind: {key}"
    number = int(re.fullmatch(r"(?:trial|call)(\d+)", rest[-1])[1])
    # The first call of Hetero-Center is that of a printout, and of its validation while it trains.
    trial = number if draw.draw == "trial" or not draw.discarded else number - draw.discarded
    if trial < 0:
        draw, trial = dataclasses.replace(draw, discarded=0), number
    assert trial < draw.trials
    return rows[draw.positions(pool)[trial]]


@pytest.mark.parametrize(("golden", "key"), LISTS)
def test_list(golden, key):
    np.testing.assert_array_equal(drawn(key, golden), golden.arrays[key])


@pytest.mark.parametrize(
    ("golden", "key"),
    [pytest.param(g, key, id=key) for g in GOLDENS for key in g.arrays if key.endswith(("_pids", "_cams"))],
)
def test_labels_of_the_queries(golden, key):
    listed, _, column = key.rpartition("_")
    dataset, _, modality = listed.split("/")
    table, rows = table_of(golden, dataset, f"test_{modality}/")
    at = np.searchsorted(rows, golden.arrays[listed])
    found = table.identity[at] if column == "pids" else table.camera[at] + 1
    np.testing.assert_array_equal(found, golden.arrays[key])
