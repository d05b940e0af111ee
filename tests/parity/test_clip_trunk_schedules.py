"""Rates of DeMo's and MDReID's parameter groups in every epoch against those of the authors' scheduler."""

from __future__ import annotations

import clip_trunk_runs
import numpy as np
import pytest

from configs.systems import clip_trunk
from mmreid_jax.testing import goldens
from mmreid_jax.training import schedules
from mmreid_jax.training.schedules import Schedule

GOLDENS = [goldens.load(path) for path in clip_trunk_runs.of_kind("schedule", "demo_moe", "mdreid")]
CASES = [
    pytest.param(golden, name, id=f"{golden.json['suite']}-{golden.name}-{name}")
    for golden in GOLDENS
    for name in golden.json["configs"]
]


def rates(case, count, noise):
    """[count, groups]: rates of the epochs from 1 on."""
    options = clip_trunk.clip_trunk().optim
    assert options.schedule == "shared_ends"
    schedule = Schedule(
        options.schedule,
        warmup_epochs=case["warmup"],
        warmup_start=options.warmup_start,
        minimum=options.minimum,
        period=case["epochs"],
        noise=options.noise if noise else 0.0,
    )
    factors = [rate / case["base_lr"] for rate in case["group_rates"]]
    return np.stack([schedules.table(schedule, case["base_lr"], count, factor) for factor in factors], axis=1)


@pytest.mark.parametrize(("golden", "name"), CASES)
def test_rates_of_every_epoch(golden, name):
    case, stored = golden.json["configs"][name], golden.arrays
    for key, noise in (("rates", True), ("rates_without_noise", False)):
        # The first row is that of epoch 0, in which nothing is trained.
        expected = stored[f"{name}/{key}@64"][1:]
        np.testing.assert_allclose(rates(case, len(expected), noise), expected, rtol=1e-12, atol=0)
    start = clip_trunk.clip_trunk().optim.warmup_start * case["base_lr"]
    np.testing.assert_allclose(stored[f"{name}/at_construction@64"], start, rtol=1e-12)


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda golden: golden.json["suite"])
def test_noise(golden):
    options, expected = clip_trunk.clip_trunk().optim, golden.arrays["noise@64"]
    np.testing.assert_array_equal(schedules.noises(range(len(expected)), options.noise), expected)
