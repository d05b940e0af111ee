"""Two-modality identity samplers of Hetero-Center and of AGW's family against index lists of the authors' code."""

from __future__ import annotations

import re

import numpy as np
import pytest
import vi_kinds

from mmreid_jax.data import samplers

GOLDENS = vi_kinds.of_kind("vi_protocols", "sampler")
CASES = [pytest.param(golden, case, id=case["name"]) for golden in GOLDENS for case in golden.json["cases"]]
VARIANTS = {"hc": {"replace": False, "second_batch_twice": True}, "agw": {}}


@pytest.mark.parametrize(("golden", "case"), CASES)
class TestCase:
    __test__ = bool(CASES)

    def plan(self, golden, case, variant, epochs, **options):
        labels = [golden.arrays[f"{case['name']}/{side}_labels"] for side in ("color", "thermal")]
        modality = np.repeat(["rgb", "nir"], [len(own) for own in labels])
        return samplers.cross_modal_reference(
            np.concatenate(labels),
            modality,
            ("rgb", "nir"),
            case["identities_per_batch"],
            case["images_per_identity"],
            epochs,
            case["numpy_seed"],
            **{**VARIANTS[variant], **options},
        )

    def test_indices(self, golden, case):
        pattern = rf"{case['name']}/(\w+)/epoch(\d+)/index([12])"
        found = [re.fullmatch(pattern, key).groups() for key in golden.arrays if re.fullmatch(pattern, key)]
        assert {variant for variant, _, _ in found} == set(VARIANTS)
        for variant, epoch, column in found:
            plan = self.plan(golden, case, variant, int(epoch) + 1)
            rows = np.concatenate([draw.indices for draw in plan if draw.epoch == int(epoch)])
            # Infrared images follow the visible ones in the table.
            expected = golden.arrays[f"{case['name']}/{variant}/epoch{epoch}/index{column}"]
            np.testing.assert_array_equal(
                rows[:, int(column) - 1] - (case["n_color"] if column == "2" else 0), expected
            )

    def test_lengths(self, golden, case):
        plan = self.plan(golden, case, "agw", 1)
        assert plan.batch == case["batch"]
        assert len(plan) == case["batches_actually_iterated"]
        assert len(plan) * plan.batch == case["n_indices"]

    def test_only_the_first_batch_differs_without_the_reference_s_slip(self, golden, case):
        assert case["hc_first_two_batches_identical"]
        pairs = zip(
            self.plan(golden, case, "hc", 2), self.plan(golden, case, "hc", 2, second_batch_twice=False), strict=True
        )
        starts = {0, int(self.plan(golden, case, "hc", 2).epoch_ends[0])}
        assert {draw.step for draw, other in pairs if not np.array_equal(draw.indices, other.indices)} == starts

    def test_positions_of_the_labels(self, golden, case):
        for side in ("color", "thermal"):
            labels = golden.arrays[f"{case['name']}/{side}_labels"]
            stored = golden.arrays[f"{case['name']}/{side}_pos_flat"]
            np.testing.assert_array_equal(np.argsort(labels, kind="stable"), stored)
            assert len(np.unique(labels)) == case["classes"]
        assert case["reported_length"] == max(case["n_color"], case["n_thermal"])


@pytest.mark.parametrize("golden", GOLDENS)
def test_nothing_is_left_out(golden):
    names = "|".join(case["name"] for case in golden.json["cases"])
    arrays = rf"({names})/((color|thermal)_(labels|pos_flat)|({'|'.join(VARIANTS)})/epoch\d+/index[12])"
    assert all(re.fullmatch(arrays, key) for key in golden.arrays)
