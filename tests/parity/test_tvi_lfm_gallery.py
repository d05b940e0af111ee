"""Queries, drawn galleries and keys of captions on the invented trees of TVI-LFM's file."""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest

from mmreid_jax import datasets
from mmreid_jax.data import captions
from mmreid_jax.datasets import disk
from mmreid_jax.testing import goldens

GOLDENS = [case for case in map(goldens.load, goldens.cases("tvi_lfm")) if case.json.get("case") == "gallery"]
DATASETS = {"sysu": "sysu_mm01", "llcm": "llcm"}
QUERY = r"(sysu|llcm)_query(?:_nir)?"
DRAWN = r"(sysu|llcm)_gallery_(all|indoor|vis)_(?:trial(\d+)|multi_npseed(\d+))"
KEYS = "llcm_ir_caption_key"
QUERIES = [pytest.param(g, key, id=key) for g in GOLDENS for key in g.json["outputs"] if re.fullmatch(QUERY, key)]
GALLERIES = [pytest.param(g, key, id=key) for g in GOLDENS for key in g.json["outputs"] if re.fullmatch(DRAWN, key)]


def files_of(golden, name):
    tree = golden.json[f"{name}_tree"]
    return [
        f"{folder}/{identity}/{number + 1:04d}.jpg"
        for folder, people in tree.items()
        for identity, count in people.items()
        for number in range(count)
    ]


def table_of(golden, name):
    """The visible images of the test identities."""
    wanted = golden.json[f"{name}_test_ids_in_file_order"]
    parts = {file: re.fullmatch(r"(?:test_vis/)?cam(\d)/(\d+)/.*", file) for file in files_of(golden, name)}
    kept = {file: found for file, found in parts.items() if found and int(found[2]) in wanted}
    camera, identity = np.array([[int(found[1]), int(found[2])] for found in kept.values()]).T
    return SimpleNamespace(identity=identity, camera=camera - 1, file=np.array(list(kept)))


@pytest.mark.parametrize(("golden", "key"), QUERIES)
def test_queries(golden, key, tmp_path):
    """The records of the builders lie in the order of the reference's queries, by which it draws their captions."""
    name = re.fullmatch(QUERY, key)[1]
    listed = ",".join(map(str, golden.json[f"{name}_test_ids_in_file_order"]))
    lists = {f"exp/{part}_id.txt": "1" for part in ("train", "val")} | {f"idx/{part}.txt": "" for part in ("test_nir",)}
    lists |= {"exp/test_id.txt": listed, "idx/test_id.txt": listed}
    for file, text in {**dict.fromkeys(files_of(golden, name), ""), **lists}.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    samples = disk.list_samples(datasets.get(DATASETS[name]).folders, tmp_path, "query")
    expected = golden.json["outputs"][key]
    assert len(samples) == expected["n"]
    assert [sample.file for sample in samples][: len(expected["first"])] == expected["first"]
    assert [sample.labels.identity for sample in samples] == expected["ids"]
    assert [sample.labels.camera + 1 for sample in samples] == expected["cams"]


@pytest.mark.parametrize(("golden", "key"), GALLERIES)
def test_gallery(golden, key):
    name, search, trial, seed = re.fullmatch(DRAWN, key).groups()
    pool = table_of(golden, name)
    single = datasets.protocol("llcm_ir_to_vis" if name == "llcm" else f"sysu_{search}_single")
    if trial is not None:
        found = single.galleries(pool)[int(trial)]
    else:
        shots = datasets.protocol(f"sysu_{search}_multi").gallery
        stream = dataclasses.replace(shots, draw="stream", seed=int(seed), discarded=0, trials=1)
        (found,) = stream.positions(pool)
    assert pool.file[found].tolist() == golden.json["outputs"][key]


@pytest.mark.parametrize("golden", GOLDENS)
def test_keys_of_captions(golden):
    for path, key in golden.json["outputs"][KEYS]:
        assert captions.key_of(path) == key


@pytest.mark.parametrize("golden", GOLDENS)
def test_nothing_is_left_out(golden):
    rest = set(golden.json["outputs"]) - {KEYS}
    assert all(re.fullmatch(QUERY, key) or re.fullmatch(DRAWN, key) for key in rest)
