"""AGW's scores on SYSU-MM01 and RegDB, from features to numbers, against the authors' code."""

from __future__ import annotations

import re

import numpy as np
import pytest
import vi_kinds

from mmreid_jax import datasets
from mmreid_jax.retrieval import metrics
from mmreid_jax.testing import goldens

GOLDENS = vi_kinds.of_kind("agw", "metrics")
PROTOCOLS = {"sysu": "sysu_all_single", "regdb": "regdb_visible_to_thermal"}
CASES = [
    pytest.param(golden, name, kind, id=f"{name}-{kind}")
    for golden in GOLDENS
    for name in golden.json["cases"]
    for kind in PROTOCOLS
]


def plain(golden):
    """Name of the case whose features the others share, and the words that tell them."""
    ((name, words),) = ((name, words) for name, words in golden.json["cases"].items() if "'centre'" in words)
    return name, words


def features(golden):
    """Features of the whole query and gallery of the file, float64 [N, D] each, of length one."""
    whole, words = plain(golden)
    weight, people, width = re.search(r"\+ ([\d.]+)\*recipe\.array\(seed,'centre',\[(\d+),(\d+)\]", words).groups()
    recipe, seed = goldens.recipe(), golden.json["seed"]
    centre = recipe.array(seed, "centre", [int(people), int(width)], np.float64)
    for side in "qg":
        identity = golden.arrays[f"{whole}/{side}_ids"]
        own = recipe.array(seed, side, [len(identity), int(width)], np.float64) + float(weight) * centre[identity]
        yield own / np.linalg.norm(own, axis=1, keepdims=True)


def distances_of(golden, name, protocol):
    """Distances that the description of a case asks for."""
    query, gallery = features(golden)
    words, (whole, _) = golden.json["cases"][name], plain(golden)
    if match := re.match(r"gallery = every (\d+)-th item, first (\d+)", words):
        gallery = gallery[:: int(match[1])][: int(match[2])]
    if match := re.match(rf"dist = round\((\d+)\*{re.escape(whole)}\)/\1", words):
        return np.round(-int(match[1]) * (query @ gallery.T)) / int(match[1])
    assert match or name == whole or words.startswith((f"as {whole}", "gallery =")), f"unknown case {name}: {words}"
    return protocol.distances(query, gallery)


@pytest.mark.parametrize(("golden", "name", "kind"), CASES)
def test_scores(golden, name, kind, x64):
    protocol = datasets.protocol(PROTOCOLS[kind])
    stored = {key.split("/", 1)[1]: value for key, value in golden.arrays.items() if key.startswith(f"{name}/")}
    tables = [
        metrics.Labels(stored[f"{side}_ids"], stored[f"{side}_cam"] - 1, np.zeros_like(stored[f"{side}_cam"]))
        for side in "qg"
    ]
    scores = metrics.evaluate(distances_of(golden, name, protocol), *tables, protocol)
    curve = stored[f"{kind}/cmc"]
    np.testing.assert_allclose(scores.cmc[: len(curve)], curve, rtol=0, atol=1e-6)
    assert np.all(scores.cmc[len(curve) :] == scores.cmc[len(curve) - 1])
    assert abs(scores.mAP - stored[f"{kind}/mAP"]) <= 1e-6
    assert abs(scores.mINP - stored[f"{kind}/mINP"]) <= 1e-6


@pytest.mark.parametrize("golden", GOLDENS)
def test_nothing_is_left_out(golden):
    inputs = {f"{side}_{column}" for side in "qg" for column in ("ids", "cam")}
    scores = {f"{kind}/{key}" for kind in PROTOCOLS for key in ("cmc", "mAP", "mINP")}
    assert set(golden.arrays) == {f"{name}/{key}" for name in golden.json["cases"] for key in inputs | scores}
