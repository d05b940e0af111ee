"""CMC, mAP and mINP of SYSU-MM01, RegDB and LLCM on stored distances against the authors' code."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import vi_kinds

from mmreid_jax import datasets
from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import metrics
from mmreid_jax.testing import goldens

GOLDENS = vi_kinds.of_kind("vi_protocols", "metrics")
CASES = [pytest.param(golden, case, id=case["name"]) for golden in GOLDENS for case in golden.json["cases"]]
PROTOCOLS = {
    "sysu": "sysu_all_single",
    "regdb": "regdb_visible_to_thermal",
    "llcm": "llcm_ir_to_vis",
}
MARKET = re.compile(r"market1501 \(max_rank (\d+)\)")
INPUTS = {"distmat", "q_pids", "g_pids", "q_cams", "g_cams"}
SCORES = {"cmc", "mAP", "mINP", "per_query_ap", "per_query_inp"}


def test_every_case_file_is_of_a_known_kind():
    for golden in map(goldens.load, goldens.cases("vi_protocols")):
        assert vi_kinds.kind_of(golden) in {"metrics", "gallery", "sampler", "transforms"}, golden.name


def protocol_of(metric):
    """The protocol that a file names."""
    if market := MARKET.fullmatch(metric):
        return dataclasses.replace(datasets.protocol("rgbnt"), max_rank=int(market[1]))
    return datasets.protocol(PROTOCOLS[metric])


def setting(golden, case):
    """(distances, labels of queries, of the gallery, protocol) of a case; cameras of the files count from 1."""
    name = case.get("inputs", case["name"]).removeprefix("those of ")
    tables = []
    for side, invented in (("q", 1), ("g", 2)):
        identity = golden.arrays[f"{name}/{side}_pids"]
        camera = golden.arrays.get(f"{name}/{side}_cams", np.full_like(identity, invented))
        tables.append(metrics.Labels(identity, camera - 1, np.zeros_like(identity)))
    return golden.arrays[f"{name}/distmat"], *tables, protocol_of(case["metric"])


@pytest.mark.parametrize(("golden", "case"), CASES)
class TestCase:
    __test__ = bool(CASES)

    def test_nothing_is_left_out(self, golden, case):
        stored = {key.split("/")[1] for key in golden.arrays if key.split("/")[0] == case["name"]}
        if "inputs" in case:
            assert stored == {"cmc", "mAP"}
        else:
            # RegDB has no cameras.
            inputs = INPUTS - {"q_cams", "g_cams"} if case["metric"] == "regdb" else INPUTS
            assert stored == (inputs if "raises" in case else inputs | SCORES)
        assert {key.split("/")[0] for key in golden.arrays} == {entry["name"] for entry in golden.json["cases"]}

    def test_scores(self, golden, case):
        apart, query, gallery, protocol = setting(golden, case)
        if case.get("raises") == "AssertionError":
            with pytest.raises(UserError, match=r"none of .* has a right match"):
                metrics.evaluate(apart, query, gallery, protocol)
            return
        scores = metrics.evaluate(apart, query, gallery, protocol)
        if case.get("raises") == "ValueError":
            self.extended(scores, apart, query, gallery, protocol)
            return
        assert "raises" not in case
        limits = golden.json["tolerance"]
        expected = {key: golden.arrays[f"{case['name']}/{key}"] for key in SCORES if "inputs" not in case}
        expected.update({key: golden.arrays[f"{case['name']}/{key}"] for key in ("cmc", "mAP")})
        # The reference's curve ends with the people of a small gallery; ours keeps its last value.
        curve = np.pad(expected["cmc"], (0, len(scores.cmc) - len(expected["cmc"])), mode="edge")
        np.testing.assert_allclose(scores.cmc, curve, rtol=0, atol=limits["cmc"])
        assert abs(scores.mAP - expected["mAP"]) <= limits["mAP"]
        if "mINP" in expected:
            assert abs(scores.mINP - expected["mINP"]) <= limits["mINP"]
            for found, key in (
                (scores.average_precision, "per_query_ap"),
                (scores.inverse_negative_penalty, "per_query_inp"),
            ):
                np.testing.assert_allclose(found, expected[key], rtol=0, atol=limits["mAP"])
            assert scores.num_valid == case["valid_queries"]
        assert abs(scores.rank(1) - case["rank1"]) <= limits["cmc"]

    @staticmethod
    def extended(scores, apart, query, gallery, protocol):
        """Where rows end at different ranks the reference fails; extended rows are means of single queries."""
        rows = range(len(apart))
        alone = []
        for i in rows:
            one = metrics.Labels(*(column[i : i + 1] for column in (query.identity, query.camera, query.scene)))
            if scores.first_hit[i]:
                alone.append(metrics.evaluate(apart[i : i + 1], one, gallery, protocol).cmc)
        np.testing.assert_allclose(scores.cmc, np.mean(alone, axis=0), rtol=0, atol=1e-12)
        assert scores.cmc[-1] == 1
