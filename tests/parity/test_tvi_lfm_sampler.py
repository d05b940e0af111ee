"""TVI-LFM's identity sampler, its draw of the captions of queries, and its choice of rephrasings."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest

from mmreid_jax.data import captions, samplers
from mmreid_jax.testing import goldens

GOLDENS = [case for case in map(goldens.load, goldens.cases("tvi_lfm")) if case.json.get("case") == "sampler"]
MODALITIES = ("rgb", "nir")


@pytest.mark.parametrize("golden", GOLDENS)
class TestFile:
    __test__ = bool(GOLDENS)

    def test_epochs(self, golden):
        facts, stored = golden.json["config"], golden.arrays
        labels = [stored["rgb_labels"], stored["ir_labels"]]
        epochs = sorted({int(match[1]) for key in stored if (match := re.fullmatch(r"index1_epoch(\d+)", key))})
        plan = samplers.cross_modal_reference(
            np.concatenate(labels),
            np.repeat(MODALITIES, [len(own) for own in labels]),
            MODALITIES,
            facts["batch"] // facts["num_pos"],
            facts["num_pos"],
            len(epochs),
            facts["numpy_seed"],
        )
        assert plan.batch == facts["batch"]
        assert max(map(len, labels)) == facts["len_sampler"]
        assert len(np.unique(labels[0])) == facts["ids"]
        for epoch in epochs:
            rows = np.concatenate([draw.indices for draw in plan if draw.epoch == epoch])
            np.testing.assert_array_equal(rows[:, 0], stored[f"index1_epoch{epoch}"])
            np.testing.assert_array_equal(rows[:, 1] - len(labels[0]), stored[f"index2_epoch{epoch}"])

    def test_captions_of_queries(self, golden):
        counts, seed = golden.arrays["caption_counts"], golden.json["config"]["numpy_seed"]
        found = captions.picks(counts, "reference", seed)
        np.testing.assert_array_equal(found, golden.arrays["caption_picks"])

    def test_rephrasings(self, golden):
        """The reference asks Python's generator, first for the visible, then for the infrared caption of a sample."""
        python = random.Random(golden.json["config"]["numpy_seed"])
        expected = golden.arrays["llm_aug_rgb_ir"]
        share = float(re.search(r"random\.random\(\) < ([\d.]+)", golden.json["notes"])[1])
        assert captions.TextOptions().rephrased == share
        chance = np.array([[python.random() for _ in MODALITIES] for _ in expected])
        said = np.full(chance.shape, "as it is", object)
        found = captions.choose(said, np.full(chance.shape, "rephrased", object), chance, share)
        np.testing.assert_array_equal(found == "rephrased", expected)

    def test_nothing_is_left_out(self, golden):
        known = {"rgb_labels", "ir_labels", "caption_counts", "caption_picks", "llm_aug_rgb_ir"}
        assert known <= set(golden.arrays)
        assert all(re.fullmatch(r"index[12]_epoch\d+", key) for key in set(golden.arrays) - known)
