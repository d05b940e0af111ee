"""TVI-LFM's scores of fused, infrared and text queries and of their ensemble, from features to numbers."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mmreid_jax import datasets
from mmreid_jax.retrieval import metrics
from mmreid_jax.testing import goldens

GOLDENS = [case for case in map(goldens.load, goldens.cases("tvi_lfm")) if case.json.get("case") == "metrics"]
# The rule of SYSU-MM01 is also what the reference does with infrared queries of LLCM.
PROTOCOLS = {
    "sysu": ("sysu_all_single", "llcm_ir_to_vis_as_sysu"),
    "regdb": ("regdb_thermal_to_visible",),
    "llcm": ("llcm_ir_to_vis",),
}
QUERIES = ("fusion", "ir", "text")
ENSEMBLE = "mer"
CASES = [
    pytest.param(golden, name, query, protocol, id=f"{golden.path.stem}-{name}-{query}-{protocol}")
    for golden in GOLDENS
    for name, case in golden.json["config"].items()
    for query in (*QUERIES, ENSEMBLE)
    for protocol in PROTOCOLS[case["kind"]]
]
LABELS = ("qid", "gid", "qcam", "gcam")


def normalised(features):
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)


def features(golden, name):
    """Features of the queries {kind: [Q, D]} and of the gallery [G, D], float64 of float32 values, of length one."""
    words, case, recipe = golden.json["inputs"], golden.json["config"][name], goldens.recipe()
    seed, stored = golden.json["seed"], golden.arrays
    more = int(re.search(r"\(ids\+(\d+), D\)", words["proto"])[1])
    proto = recipe.array(seed, f"{name}/proto", (case["ids"] + more, case["D"]), np.float64)
    scale = float(re.search(r"proto\[gid\] \+ ([\d.]+) \*", words["gallery"])[1])
    gallery = proto[stored[f"{name}/gid"]] + scale * recipe.array(seed, f"{name}/g", (case["G"], case["D"]))
    if case["tie"]:
        gallery = np.repeat(gallery[: -(-case["G"] // 2)], 2, axis=0)[: case["G"]]
    (said,) = (key for key in words if key.startswith("query k in"))
    assert said.startswith(f"query k in {', '.join(QUERIES)} (j = 0, 1, 2)")
    first, step = (float(text) for text in re.search(r"\(([\d.]+) \+ ([\d.]+) j\) \*", words[said]).groups())
    own = proto[stored[f"{name}/qid"]]
    return {
        kind: normalised(own + (first + step * j) * recipe.array(seed, f"{name}/{kind}", (case["Q"], case["D"])))
        for j, kind in enumerate(QUERIES)
    }, normalised(gallery)


@pytest.mark.parametrize(("golden", "name", "query", "protocol"), CASES)
def test_scores(golden, name, query, protocol, x64):
    sides, gallery = features(golden, name)
    # The ensemble adds up features of length one, and ranks by their product with those of the gallery.
    own = sum(sides.values()) if query == ENSEMBLE else sides[query]
    protocol = datasets.protocol(protocol)
    apart = protocol.distances(own, gallery)
    limit = golden.json["tolerance"]["all"]
    if query == ENSEMBLE:
        stored = golden.arrays[f"{name}/{ENSEMBLE}/similarity_row0"]
        np.testing.assert_allclose((1 - apart[0]) * np.linalg.norm(own[0]), stored, rtol=0, atol=limit)
    if golden.json["config"][name]["tie"]:
        decimals = int(re.search(r"tie cases: rounded to (\d+) decimals", golden.json["inputs"]["distance"])[1])
        apart = np.round(-(own @ gallery.T), decimals)
    identity, others, camera, seen = (golden.arrays[f"{name}/{label}"] for label in LABELS)
    tables = [metrics.Labels(one, at - 1, np.zeros_like(one)) for one, at in ((identity, camera), (others, seen))]
    scores = metrics.evaluate(apart, *tables, protocol)
    curve = golden.arrays[f"{name}/{query}/cmc"]
    np.testing.assert_allclose(scores.cmc[: len(curve)], curve, rtol=0, atol=limit)
    assert np.all(scores.cmc[len(curve) :] == scores.cmc[len(curve) - 1])
    expected = golden.arrays[f"{name}/{query}/mAP_mINP"]
    np.testing.assert_allclose([scores.mAP, scores.mINP], expected, rtol=0, atol=limit)


@pytest.mark.parametrize("golden", GOLDENS)
def test_nothing_is_left_out(golden):
    names = golden.json["config"]
    scores = {f"{query}/{key}" for query in (*QUERIES, ENSEMBLE) for key in ("cmc", "mAP_mINP")}
    assert {case["kind"] for case in names.values()} <= set(PROTOCOLS)
    known = {*LABELS, *scores, f"{ENSEMBLE}/similarity_row0"}
    assert set(golden.arrays) == {f"{name}/{key}" for name in names for key in known}


def test_every_case_file_is_of_a_known_kind():
    checked_here = {"metrics", "sampler", "gallery", "augment", "preprocess"}
    of_the_network = {"network_eval", "losses", "schedule", "color", "text_variants"}
    for golden in map(goldens.load, goldens.cases("tvi_lfm")):
        kind = golden.json["case"]
        assert kind in checked_here | of_the_network or kind.startswith("step_"), golden.name
