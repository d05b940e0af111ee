"""DEEN's scores of image pairs and the metrics of rankings by them, against the authors' code."""

from __future__ import annotations

import re

import deen_kinds
import described
import numpy as np
import pytest

from mmreid_jax import datasets
from mmreid_jax.methods.deen import of_one_length, side_by_side
from mmreid_jax.models.deen import COPIES
from mmreid_jax.retrieval import metrics
from mmreid_jax.testing import goldens

CASES = deen_kinds.of_kind("score")
PROTOCOLS = {"sysu": "sysu_all_single", "llcm": "llcm_ir_to_vis", "regdb": "regdb_thermal_to_visible"}
KINDS = ("pool", "bn")
# Whether mirror images are added, and the weights of pooled and normalised features.
SCORES = {"train_all": (False, (1.0, 1.0)), "test_all": (True, (1.0, 1.0)), "test_weighted": (True, (0.1, 0.9))}


def features(golden, side, mirrored):
    """[6, N, C] of queries or gallery, rows of length one, by the words of the file."""
    case, recipe = golden.json, goldens.recipe()
    words, letter = case["inputs"]["features"], side[0]
    share = np.float32(described.number(words, r"([\d.]+)\*recipe\.array\(seed,'centres'"))
    first = int(described.number(words, r"\[pid-(\d+)\]", 0))
    identity = np.array(case[f"{letter}_pid"]) - first
    centres = recipe.array(case["seed"], "centres", (case["ids"], case["dim"]))[identity]
    rows = []
    for kind in KINDS:
        for copy in range(1, COPIES + 1):
            key = f"{side}/{kind}{copy}{'/mirror' if mirrored else ''}"
            x = share * centres + recipe.array(case["seed"], key, centres.shape)
            rows.append(x / np.linalg.norm(x, axis=1, keepdims=True))
    return np.stack(rows)


def vectors(golden, score):
    """Queries and gallery as they are compared, and the score that the cosine 1 stands for."""
    if copy := re.fullmatch(r"train_(pool|bn)(\d)", score):
        row = COPIES * KINDS.index(copy[1]) + int(copy[2]) - 1
        return [features(golden, side, False)[row].astype(np.float64) for side in ("query", "gallery")], 1.0
    mirror, weights = SCORES[score]
    found, largest = [], COPIES * sum(weights) * (1.0 + mirror) ** 2
    for side in ("query", "gallery"):
        units = features(golden, side, False).astype(np.float64)
        units = units + features(golden, side, True) if mirror else units
        every = side_by_side(units, weights)
        found.append(of_one_length(every, largest, np.full(len(every), side == "gallery")) if mirror else every)
    return list(map(np.asarray, found)), largest


@pytest.mark.parametrize("golden", CASES, ids=lambda golden: golden.name)
def test_case(golden, x64):
    case, tables = golden.json, {}
    for key in golden.arrays:
        family, name, *_ = key.split("/")
        score, swapped = name.removesuffix("_swapped"), "swapped" in key
        (query, gallery), scale = vectors(golden, score)
        distances = datasets.protocol(PROTOCOLS["sysu"]).distances(query, gallery)
        expected = golden.arrays[key]
        distances = distances.T if swapped else distances
        if family == "score":
            found = scale * (1 - distances)
            np.testing.assert_allclose(found, expected, rtol=0, atol=case["tolerances"]["score/*"]["atol"], err_msg=key)
        elif family == "rank":
            np.testing.assert_array_equal(np.argsort(distances, axis=1, kind="stable"), expected, err_msg=key)
        else:
            if (family, score) not in tables:
                tables[family, score] = scored(case, family.removesuffix("_swapped"), distances, swapped)
            found, (kind,) = tables[family, score], key.split("/")[2:]
            if kind == "cmc":
                np.testing.assert_allclose(found.cmc[: len(expected)], expected, rtol=0, atol=1e-6, err_msg=key)
            else:
                assert abs(getattr(found, kind) - expected) <= 1e-9, key


def scored(case, dataset, distances, swapped):
    """Metrics of a data set's protocol; roles exchanged where the gallery ranks the queries."""
    protocol, sides = datasets.protocol(PROTOCOLS[dataset]), []
    for letter in "qg":
        identity = np.array(case[f"{letter}_pid"])
        camera = case.get(f"{letter}_cam", case.get(f"{letter}_cam_{dataset}"))
        # RegDB has no cameras.
        camera = np.zeros_like(identity) if camera is None else np.array(camera) - 1
        sides.append(metrics.Labels(identity, camera, np.zeros_like(identity)))
    return metrics.evaluate(distances, *(reversed(sides) if swapped else sides), protocol)
