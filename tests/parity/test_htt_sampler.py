"""HTT's P x K sampler and random erasing against sequences of the authors' code."""

import random
import re

import numpy as np
import pytest

from mmreid_jax.data import samplers, transforms
from mmreid_jax.testing import goldens

GOLDENS = [goldens.load(path) for path in goldens.cases("htt")]
SEQUENCES = [
    pytest.param(golden, name, id=name)
    for golden in GOLDENS
    if any("num_instances" in case for case in golden.json.get("cases", {}).values())
    for name in golden.json["cases"]
]
RECTANGLES = [
    pytest.param(golden.json["random_erasing"], id="x".join(map(str, golden.json["random_erasing"]["size"])))
    for golden in GOLDENS
    if "random_erasing" in golden.json
]


@pytest.mark.parametrize(("golden", "name"), SEQUENCES)
class TestSequence:
    __test__ = bool(SEQUENCES)

    def test_epochs_are_drawn_in_the_order_of_the_reference(self, golden, name):
        case, arrays = golden.json["cases"][name], golden.arrays
        epochs = sorted(
            int(key.rsplit("epoch", 1)[1]) for key in arrays if re.fullmatch(rf"{re.escape(name)}/epoch\d+", key)
        )
        k = case["num_instances"]
        plan = samplers.pk_reference(
            arrays[f"{name}/labels"],
            samplers.identities_per_batch(case["batch_size"], k),
            k,
            epochs[-1],
            case["python_and_numpy_seed"],
        )
        assert epochs
        for epoch in epochs:
            expected = arrays[f"{name}/epoch{epoch}"]
            drawn = [draw.indices for draw in plan if draw.epoch == epoch - 1]
            np.testing.assert_array_equal(np.concatenate(drawn), expected)
            assert len(expected) == case[f"yielded_epoch{epoch}"]


@pytest.mark.parametrize("case", RECTANGLES)
class TestRandomErasing:
    __test__ = bool(RECTANGLES)

    def test_rectangles_of_successive_calls(self, case):
        rng = random.Random(case["python_seed"])
        drawn = [
            transforms.erasing_rectangle(rng, *case["size"], probability=case["probability"])
            for _ in case["top_left_h_w"]
        ]
        assert drawn == [tuple(r) if r else transforms.NO_RECTANGLE for r in case["top_left_h_w"]]
