"""HTT's learning rates against those of the authors' scheduler."""

import json
import os
import pathlib

import numpy as np
import pytest

from mmreid_jax.training import schedules

FOLDER = pathlib.Path(os.environ.get("MMREID_GOLDENS", pathlib.Path(__file__).parents[1] / "goldens")) / "htt"
FILES = sorted(FOLDER.glob("lr_schedules*.json"))
CASES = [(file, name) for file in FILES for name in json.loads(file.read_text())["cases"]]


@pytest.mark.parametrize(("file", "name"), CASES, ids=[name for _, name in CASES])
class TestEpochTable:
    __test__ = bool(CASES)

    def _case(self, file, name):
        case = json.loads(file.read_text())["cases"][name]
        arrays = np.load(file.with_suffix(".npz"))
        return case, {key: arrays[f"{name}/{key}"] for key in ("at_construction", "epoch", "weight", "bias")}

    def test_rates_of_both_groups(self, file, name):
        case, expected = self._case(file, name)
        for group, factor in (("weight", 1.0), ("bias", case["bias_lr_factor"])):
            rate = schedules.htt(
                expected["epoch"], case["base_lr"], case["max_epochs"], case["warmup_epochs"], float(factor)
            )
            np.testing.assert_allclose(rate, expected[group], rtol=1e-12, atol=0)

    def test_rates_at_construction_are_those_of_epoch_zero(self, file, name):
        case, expected = self._case(file, name)
        rate = [
            schedules.htt(0, case["base_lr"], case["max_epochs"], case["warmup_epochs"], float(factor))
            for factor in (1, case["bias_lr_factor"])
        ]
        np.testing.assert_allclose(rate, expected["at_construction"], rtol=1e-12, atol=0)

    def test_rates_seen_by_the_steps_of_a_run(self, file, name):
        case, expected = self._case(file, name)
        schedule = schedules.Schedule("htt", warmup_epochs=case["warmup_epochs"])
        lengths = 1 + np.arange(case["max_epochs"]) % 3
        ends = np.cumsum(lengths)
        for group, factor in (("weight", 1.0), ("bias", float(case["bias_lr_factor"]))):
            rate = schedules.make(schedule, case["base_lr"], ends, factor)(np.arange(ends[-1]))
            by_epoch = dict(zip(expected["epoch"].tolist(), expected[group].tolist(), strict=True))
            wanted = np.repeat([by_epoch[epoch + 1] for epoch in range(case["max_epochs"])], lengths)
            np.testing.assert_allclose(rate, wanted, rtol=2e-7, atol=0)
