"""torchreid's samplers by identity, camera and data set against index lists of the authors' code."""

import itertools
import re

import numpy as np
import pytest

from mmreid_jax.data import samplers
from mmreid_jax.testing import goldens

GOLDENS = [
    golden
    for golden in map(goldens.load, goldens.cases("ieee"))
    if any(isinstance(case, dict) and "num_instances" in case for case in golden.json.values())
]
CASES = [
    pytest.param(case, id=name)
    for golden in GOLDENS
    for name, case in golden.json.items()
    if isinstance(case, dict) and "num_instances" in case
]
# What describes a case; everything else in it must be an index list that a test below finds.
SETTING = {"images_per_identity_in_order", "batch_size", "num_instances", "python_and_numpy_seed", "source"}
LENGTHS = {"len_reported", "len_real"}
IDENTITIES, SPREAD = r"epoch(\d+)", r"(domain|dataset)_sampler_batch(\d+)_n(\d+)"


def labels_of(case):
    """Identity, camera and data set of every item, by the rule of the file: "camera (pid+j)%3, dataset (7*pid+j)%2"."""
    items = [(name, j) for name, count in case["images_per_identity_in_order"] for j in range(count)]
    name, j = np.array(items).T
    labels = {"identity": name}
    for ours, theirs in (("domain", "camera"), ("dataset", "dataset")):
        factor, modulus = re.search(theirs + r" \((?:(\d+)\*)?pid\+j\)%(\d+)", case["source"]).groups()
        labels[ours] = (int(factor or 1) * name + j) % int(modulus)
    return labels


def identity_plan(case, epochs):
    k = case["num_instances"]
    p = samplers.identities_per_batch(case["batch_size"], k)
    return samplers.pk_reference(labels_of(case)["identity"], p, k, epochs, case["python_and_numpy_seed"])


def drawn(plan, epoch):
    return np.concatenate([draw.indices for draw in plan if draw.epoch == epoch])


@pytest.mark.parametrize("case", CASES)
class TestSequences:
    __test__ = bool(CASES)

    def test_nothing_is_left_out(self, case):
        lists = {key for key in case if re.fullmatch(IDENTITIES, key) or re.fullmatch(SPREAD, key)}
        assert lists
        assert set(case) == SETTING | LENGTHS | lists

    def test_identities(self, case):
        epochs = sorted(int(match[1]) for key in case if (match := re.fullmatch(IDENTITIES, key)))
        plan = identity_plan(case, epochs[-1])
        for epoch in epochs:
            np.testing.assert_array_equal(drawn(plan, epoch - 1), case[f"epoch{epoch}"])

    def test_the_plan_tells_the_true_length_of_every_epoch(self, case):
        plan = identity_plan(case, len(case["len_real"]))
        lengths = np.diff(plan.epoch_ends, prepend=0) * case["batch_size"]
        assert lengths.tolist() == case["len_real"]
        assert max(lengths) <= case["len_reported"]

    def test_cameras_and_data_sets(self, case):
        labels = labels_of(case)
        for key, expected in case.items():
            match = re.fullmatch(SPREAD, key)
            if match:
                batch, count = int(match[2]), int(match[3])
                plan = samplers.spread_reference(
                    labels[match[1]], count, batch // count, 1, case["python_and_numpy_seed"]
                )
                np.testing.assert_array_equal(drawn(plan, 0), expected)

    def test_invariants_of_the_identity_sampler(self, case):
        """Those that the file lists, over more epochs than it holds."""
        names = labels_of(case)["identity"]
        k, p = case["num_instances"], case["batch_size"] // case["num_instances"]
        for draw in identity_plan(case, 3):
            runs = [(name, len(list(run))) for name, run in itertools.groupby(names[draw.indices])]
            assert len({name for name, _ in runs}) == p
            assert [length for _, length in runs] == [k] * p
        plan = identity_plan(case, 3)
        for epoch in range(3):
            rows = drawn(plan, epoch)
            for name, count in case["images_per_identity_in_order"]:
                own = rows[names[rows] == name]
                if count >= k:
                    assert len(set(own.tolist())) == len(own) <= count // k * k
                else:
                    assert len(own) in (0, k)
