"""SYSU-MM01's queries and galleries on an invented tree against the lists of AGW's and MMGL's code."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import vi_kinds

from mmreid_jax import datasets
from mmreid_jax.retrieval import galleries

GOLDENS = vi_kinds.of_kind("agw", "gallery")
DRAWS = [
    pytest.param(golden, shots, key, id=f"{shots}-{key}")
    for golden in GOLDENS
    for shots in ("single", "multi")
    for key in golden.json[shots]
]
QUERIES = [pytest.param(golden, key, id=key) for golden in GOLDENS for key in golden.json if key.startswith("query_")]
SYSU_QUERIES = (2, 5)


def table_of(golden):
    """All images of test identities; the files say how many lie in each folder."""
    wanted = {int(number) for number in golden.json["test_id_file"].split(",")}
    assert golden.json["naming"] == "0001.jpg .. in each folder"
    files = [
        f"{folder}/{number + 1:04d}.jpg"
        for folder, count in golden.json["files_per_folder"].items()
        for number in range(count)
        if int(folder.split("/")[1]) in wanted
    ]
    camera, identity = np.array([[int(file[3]), int(file.split("/")[1])] for file in files]).T
    return SimpleNamespace(identity=identity, camera=camera - 1, file=np.array(files))


@pytest.mark.parametrize(("golden", "shots", "key"), DRAWS)
def test_gallery(golden, shots, key):
    search, trial = key.split("/")
    pool = table_of(golden)
    found = datasets.protocol(f"sysu_{search}_{shots}").galleries(pool)[int(trial)]
    assert pool.file[found].tolist() == golden.json[shots][key].split()


@pytest.mark.parametrize(("golden", "key"), QUERIES)
def test_queries(golden, key):
    pool, expected = table_of(golden), golden.json[key]
    rows = galleries.listed(pool, SYSU_QUERIES)
    files = pool.file[rows].tolist()
    assert len(files) == expected["count"]
    assert files[: len(expected["first"])] == expected["first"]
    assert files[-len(expected["last"]) :] == expected["last"]
    assert pool.identity[rows].sum() == expected["ids_sum"]
    assert (pool.camera[rows] + 1).sum() == expected["cams_sum"]


@pytest.mark.parametrize("golden", GOLDENS)
def test_nothing_is_left_out(golden):
    known = {"seed", "test_id_file", "files_per_folder", "naming", "single", "multi"}
    assert set(golden.json) == known | {key for key in golden.json if key.startswith("query_")}
