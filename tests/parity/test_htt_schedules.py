"""HTT's learning rates against those of the authors' scheduler."""

import numpy as np
import pytest

from mmreid_jax.testing import goldens
from mmreid_jax.training import schedules

GOLDENS = [golden for golden in map(goldens.load, goldens.cases("htt")) if golden.json.get("case") == "lr_schedules"]
CASES = [pytest.param(golden, name, id=name) for golden in GOLDENS for name in golden.json["cases"]]


@pytest.mark.parametrize(("golden", "name"), CASES)
class TestEpochTable:
    __test__ = bool(CASES)

    def _case(self, golden, name):
        stored = {key: golden.arrays[f"{name}/{key}"] for key in ("at_construction", "epoch", "weight", "bias")}
        return golden.json["cases"][name], stored

    def test_rates_of_both_groups(self, golden, name):
        case, expected = self._case(golden, name)
        for group, factor in (("weight", 1.0), ("bias", case["bias_lr_factor"])):
            rate = schedules.htt(
                expected["epoch"], case["base_lr"], case["max_epochs"], case["warmup_epochs"], float(factor)
            )
            np.testing.assert_allclose(rate, expected[group], rtol=1e-12, atol=0)

    def test_rates_at_construction_are_those_of_epoch_zero(self, golden, name):
        case, expected = self._case(golden, name)
        rate = [
            schedules.htt(0, case["base_lr"], case["max_epochs"], case["warmup_epochs"], float(factor))
            for factor in (1, case["bias_lr_factor"])
        ]
        np.testing.assert_allclose(rate, expected["at_construction"], rtol=1e-12, atol=0)

    def test_rates_seen_by_the_steps_of_a_run(self, golden, name):
        case, expected = self._case(golden, name)
        schedule = schedules.Schedule("htt", warmup_epochs=case["warmup_epochs"])
        lengths = 1 + np.arange(case["max_epochs"]) % 3
        ends = np.cumsum(lengths)
        for group, factor in (("weight", 1.0), ("bias", float(case["bias_lr_factor"]))):
            rate = schedules.make(schedule, case["base_lr"], ends, factor)(np.arange(ends[-1]))
            by_epoch = dict(zip(expected["epoch"].tolist(), expected[group].tolist(), strict=True))
            wanted = np.repeat([by_epoch[epoch + 1] for epoch in range(case["max_epochs"])], lengths)
            np.testing.assert_allclose(rate, wanted, rtol=2e-7, atol=0)
