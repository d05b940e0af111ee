"""Distances, CMC, mAP and re-ranking against numbers of HTT's evaluation; every case of the metrics file."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mmreid_jax.retrieval import distances, metrics, protocols, rerank
from mmreid_jax.testing import goldens

FILES = [goldens.load(path) for path in goldens.cases("htt") if goldens.load(path).json.get("case") == "metrics"]
CASES = [pytest.param(file, name, id=f"{file.path.stem}-{name}") for file in FILES for name in file.json["cases"]]
# The reference computes distances in float32 and keeps the re-ranking's neighbourhoods in float16.
FLOAT32, FLOAT16 = 1e-5, 2e-3


def setting(golden, name):
    """Features and labels of a case, from its recipe: (features [total, D], identity, camera, scene, queries)."""
    case, recipe, seed = golden.json["cases"][name], goldens.recipe(), golden.json["seed"]
    total, queries, width = case["total"], case["num_query"], case["dim"]
    centres = recipe.array(seed, f"{name}/centre", (case["npid"], width))
    noise = recipe.array(seed, f"{name}/noise", (total, width))
    stored = golden.arrays
    if "ncam" not in case:
        # One gallery sample of every identity.
        asked = recipe.integers(seed, f"{name}/pid", 0, case["npid"], (queries,))
        identity = np.concatenate([asked, np.arange(case["npid"])])
        camera = np.repeat([0, 1], [queries, total - queries])
        features = centres[identity] + case["sigma"] * noise
    else:
        drawn = queries if case.get("query_equals_gallery") else total
        identity = recipe.integers(seed, f"{name}/pid", 0, case["npid"], (total,))
        camera = recipe.integers(seed, f"{name}/cam", 0, case["ncam"], (total,))
        if case.get("query_equals_gallery"):
            identity = recipe.integers(seed, f"{name}/pid", 0, case["npid"], (drawn,))
            noise = recipe.array(seed, f"{name}/noise", (drawn, width))
        features = centres[identity] + case["sigma"] * noise
        if case.get("query_equals_gallery"):
            features = np.concatenate([features, features])
        if "copies" in (case.get("edit") or ""):
            # "gallery rows nq+1, ... are exact copies (...) of rows nq, ..."
            copies, originals = (
                [int(offset or 0) for offset in re.findall(r"nq(?:\+(\d+))?", half)]
                for half in case["edit"].split("copies")
            )
            for copy, original in zip(copies, originals, strict=True):
                features[queries + copy] = features[queries + original]
    identity = stored.get(f"{name}/pid", identity)
    camera = stored.get(f"{name}/cam", camera)
    scene = stored.get(f"{name}/scene", np.zeros_like(identity))
    return np.asarray(features, np.float32), identity, camera, scene, queries


@pytest.mark.parametrize(("golden", "name"), CASES)
def test_case(golden, name):
    case = golden.json["cases"][name]
    features, identity, camera, scene, queries = setting(golden, name)
    features = distances.l2_normalise(features)
    query, gallery = features[:queries], features[queries:]
    parts = slice(queries), slice(queries, None)
    tables = [metrics.Labels(identity[part], camera[part], scene[part]) for part in parts]
    rule = "same_identity_same_scene" if "scene" in case.get("filter", "") else "same_identity_same_camera"
    protocol = protocols.Protocol("golden", removes=rule)
    stored = {key.removeprefix(f"{name}/"): value for key, value in golden.arrays.items() if key.startswith(f"{name}/")}
    if "k1" in case:
        apart = rerank.k_reciprocal(query, gallery, case["k1"], case["k2"], case["lambda_value"], precision=np.float16)
        np.testing.assert_allclose(apart, stored["distmat"], rtol=0, atol=FLOAT16)
        tolerance = FLOAT16
    else:
        apart = protocol.distances(query, gallery)
        corner = stored["distmat_head"]
        np.testing.assert_allclose(apart[: len(corner), : corner.shape[1]], corner, rtol=0, atol=FLOAT32)
        tolerance = 1e-7
    scores = metrics.evaluate(apart, *tables, protocol)
    assert abs(scores.mAP - case["mAP"]) <= tolerance
    assert abs(scores.mAP - float(stored["mAP"])) <= tolerance
    if "cmc" in stored:
        assert len(scores.cmc) == case.get("cmc_len", len(stored["cmc"]))
        np.testing.assert_allclose(scores.cmc, stored["cmc"], rtol=0, atol=1e-6 if "k1" not in case else 0.05)
