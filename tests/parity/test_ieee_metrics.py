"""Distances, CMC, mAP and re-ranking against numbers of IEEE's evaluation (torchreid); every block of every file."""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction

import described
import numpy as np
import pytest

from mmreid_jax import datasets
from mmreid_jax.retrieval import distances, metrics, rerank
from mmreid_jax.testing import goldens

GOLDENS = [goldens.load(path) for path in goldens.cases("ieee")]
METRICS = [golden for golden in GOLDENS if "ragged" in golden.json]
RERANK = [golden for golden in GOLDENS if any(re.search(r"/k1_\d+_k2_\d+_lambda_", key) for key in golden.json)]
BLOCKS = [
    pytest.param(golden, name, kind, id=f"{name}-{kind}")
    for golden in METRICS
    for name, block in golden.json["blocks"].items()
    for kind in block["results"]
]
SINGLE_SHOTS = [
    param for param in BLOCKS if "cuhk03" in param.values[0].json["blocks"][param.values[1]]["results"][param.values[2]]
]
RERANKED = [pytest.param(golden, key, id=key) for golden in RERANK for key in golden.arrays]
# Names of the reference: "euclidean" has no root.
KINDS = {"euclidean": "squared_euclidean", "cosine": "cosine", "sqeuclidean": "squared_euclidean"}
# Absolute, of the files: distances by kind, shares, re-ranked distances.
DISTANCE, SHARE, RERANK_TOLERANCE = {"squared_euclidean": 1e-4, "cosine": 1e-6}, 1e-6, 1e-5


def setting(golden, name):
    """(query features, gallery features, labels of both) of a block by the recipe of the file."""
    block, seed, recipe = golden.json["blocks"][name], golden.json["seed"], goldens.recipe()
    sizes = {"q": block["nq"], "g": block["ng"]}
    identity = {s: recipe.integers(seed, f"{name}/{s}id", 0, block["ids"], (n,)) for s, n in sizes.items()}
    camera = {s: recipe.integers(seed, f"{name}/{s}cam", 0, block["cams"], (n,)) for s, n in sizes.items()}
    centres = recipe.array(seed, f"{name}/centres", (block["ids"], block["dim"]))
    feature = {
        s: np.float32(block["signal"]) * centres[identity[s]] + recipe.array(seed, f"{name}/{s}", (n, block["dim"]))
        for s, n in sizes.items()
    }
    if block.get("self"):
        identity["g"], camera["g"], feature["g"] = identity["q"], camera["q"], feature["q"]
    if block.get("only_same_cam"):
        # Query 0 has one match, of its own camera; query 1 has none.
        identity["q"][0] = identity["g"][3] = block["ids"]
        camera["g"][3] = camera["q"][0]
        identity["q"][1] = block["ids"] + 1
    for i, j in block.get("duplicate", []):
        feature["g"][j] = feature["g"][i]
    labels = {s: metrics.Labels(identity[s], camera[s], np.zeros_like(camera[s])) for s in sizes}
    return feature["q"], feature["g"], labels["q"], labels["g"]


def protocol_of(kind, max_rank):
    return dataclasses.replace(datasets.protocol("rgbnt"), distance=KINDS[kind], normalise=False, max_rank=max_rank)


def assert_scores(scores, expected):
    np.testing.assert_allclose(scores.cmc, expected["cmc"], rtol=0, atol=SHARE)
    assert abs(scores.mAP - expected["mAP"]) <= SHARE
    assert scores.num_valid == expected["num_valid_query"]
    precision = [np.nan if value is None else value for value in expected["AP_per_query"]]
    np.testing.assert_allclose(scores.average_precision, precision, rtol=0, atol=SHARE)


@pytest.mark.parametrize(("golden", "name", "kind"), BLOCKS)
class TestBlock:
    __test__ = bool(BLOCKS)

    def test_nothing_is_left_out(self, golden, name, kind):
        result = golden.json["blocks"][name]["results"][kind]
        known = {"cmc", "mAP", "AP_per_query", "num_valid_query", "smallest_nonzero_gap_between_sorted_distances"}
        assert set(result) - {"cuhk03"} == known
        assert set(result.get("cuhk03", {})) <= {"numpy_seed", "max_rank", "cmc", "mAP"}
        blocks = {f"{block}/{k}/distmat" for block, b in golden.json["blocks"].items() for k in b["results"]}
        assert set(golden.arrays) == blocks

    def test_distances(self, golden, name, kind):
        query, gallery, _, _ = setting(golden, name)
        found = protocol_of(kind, 1).distances(query, gallery)
        np.testing.assert_allclose(found, golden.arrays[f"{name}/{kind}/distmat"], rtol=0, atol=DISTANCE[KINDS[kind]])

    def test_scores_of_the_stored_distances(self, golden, name, kind):
        block = golden.json["blocks"][name]
        _, _, *tables = setting(golden, name)
        scores = metrics.evaluate(
            golden.arrays[f"{name}/{kind}/distmat"], *tables, protocol_of(kind, block["max_rank"])
        )
        assert_scores(scores, block["results"][kind])

    def test_from_features_to_scores(self, golden, name, kind, x64):
        """In float64, as neighbouring distances may be closer to each other than float32 can tell."""
        block = golden.json["blocks"][name]
        query, gallery, *tables = setting(golden, name)
        protocol = protocol_of(kind, block["max_rank"])
        apart = np.array(protocol.distances(query.astype(np.float64), gallery.astype(np.float64)))
        for i, j in block.get("duplicate", []):
            # The same sample twice is equally far in exact arithmetic.
            apart[:, j] = apart[:, i]
        assert_scores(metrics.evaluate(apart, *tables, protocol), block["results"][kind])
        gaps = np.diff(np.sort(apart, axis=1), axis=1)
        smallest = block["results"][kind]["smallest_nonzero_gap_between_sorted_distances"]
        np.testing.assert_allclose(gaps[gaps > 0].min(), smallest, rtol=1e-2)


@pytest.mark.parametrize(("golden", "name", "kind"), SINGLE_SHOTS)
def test_single_shots_of_the_stored_distances(golden, name, kind):
    expected = golden.json["blocks"][name]["results"][kind]["cuhk03"]
    _, _, *tables = setting(golden, name)
    protocol = protocol_of(kind, expected["max_rank"])
    stored = golden.arrays[f"{name}/{kind}/distmat"]
    cmc = metrics.single_shot_cmc(stored, *tables, protocol, repeats=10, seed=expected["numpy_seed"])
    np.testing.assert_allclose(cmc, expected["cmc"], rtol=0, atol=SHARE)
    assert abs(metrics.evaluate(stored, *tables, protocol).mAP - expected["mAP"]) <= SHARE


@pytest.mark.parametrize("golden", METRICS)
def test_rows_that_end_early_keep_their_last_value(golden):
    case = golden.json["ragged"]
    cmc, precision = re.fullmatch(r".*cmc = \[(.*?)\].*AP = \[(.*?)\]", case["wanted"]).groups()
    tables = [metrics.Labels(*(np.array(case[key]) for key in (f"{s}id", f"{s}cam", f"{s}cam"))) for s in ("q", "g")]
    scores = metrics.evaluate(np.array(case["distmat"]), *tables, protocol_of("euclidean", case["max_rank"]))
    np.testing.assert_allclose(scores.cmc, [float(value) for value in cmc.split(",")])
    wanted = [float(Fraction(value.strip()) if "/" in value else value) for value in precision.split(",")]
    np.testing.assert_allclose(scores.average_precision, wanted)
    assert scores.mAP == pytest.approx(np.mean(wanted))


@pytest.mark.parametrize(("golden", "key"), RERANKED)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_reranked_distances(golden, key, precision, x64):
    facts, recipe = golden.json, goldens.recipe()
    kind, k1, k2, weight = re.fullmatch(r"(\w+)/k1_(\d+)_k2_(\d+)_lambda_([\d.]+)", key).groups()
    centres = recipe.array(facts["seed"], "rr/centres", (facts["ids"], facts["dim"]))
    sides = []
    for side, count in (("q", facts["nq"]), ("g", facts["ng"])):
        identity = recipe.integers(facts["seed"], f"rr/{side}id", 0, facts["ids"], (count,))
        noise = recipe.array(facts["seed"], f"rr/{side}", (count, facts["dim"]))
        signal = described.number(facts["inputs"], r"([\d.]+)\*centres")
        sides.append((np.float32(signal) * centres[identity] + noise).astype(precision))
    name, _, normalised = kind.partition("_")
    if normalised:
        sides = [distances.l2_normalise(side) for side in sides]
    found = rerank.k_reciprocal(*sides, int(k1), int(k2), float(weight), KINDS[name])
    np.testing.assert_allclose(found, golden.arrays[key], rtol=0, atol=RERANK_TOLERANCE)


@pytest.mark.parametrize("golden", RERANK)
def test_every_reranked_case_has_an_array(golden):
    assert {key for key in golden.json if "/" in key} == set(golden.arrays)
