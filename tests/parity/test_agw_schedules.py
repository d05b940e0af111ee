"""Learning rates of the visible-infrared systems, epoch by epoch and group by group, against the authors' codes."""

from __future__ import annotations

import described
import numpy as np
import pytest

from configs import agw_sysu, caj_sysu, ddag_sysu, deen_sysu
from mmreid_jax.testing import goldens
from mmreid_jax.training import optimizers, schedules

CASES = [path for path in goldens.cases("agw") if {"base_lr", "keys"} <= goldens.load(path).json.keys()]
# The experiment whose options give the rates, and what to change in them.
SYSTEMS = {
    "agw": (agw_sysu, {}),
    "ddag_mmgl": (ddag_sysu, {}),
    "ddag_original": (ddag_sysu, {"milestones": (20, 50)}),
    "caj": (caj_sysu, {}),
    "deen": (deen_sysu, {}),
}


def columns():
    return [pytest.param(path, key, id=key) for path in CASES for key in goldens.load(path).json["keys"]]


@pytest.mark.parametrize(("path", "key"), columns())
def test_rates(path, key):
    """A name that holds a system's is that system's; any other must be one of them."""
    golden = goldens.load(path)
    expected = golden.arrays[key]
    gaps = {}
    for system in described.named(key, SYSTEMS):
        module, changes = SYSTEMS[system]
        section = module.get_config().optim
        section.update(changes)
        options = optimizers.OptimizerOptions.of(section)
        # The first column is the trunk, the others are new layers.
        factors = [options.base_lr_factor] + [1.0] * (expected.shape[1] - 1)
        rates = [schedules.table(options.timetable, golden.json["base_lr"], len(expected), f) for f in factors]
        gaps[system] = float(np.abs(np.stack(rates, axis=1) / expected - 1).max())
    assert min(gaps.values()) <= 1e-12, gaps
