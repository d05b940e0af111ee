"""Learning rates of the visible-infrared systems, epoch by epoch and group by group, against the authors' codes."""

from __future__ import annotations

import numpy as np
import pytest

from configs import agw_sysu, caj_sysu, ddag_sysu
from mmreid_jax.testing import goldens
from mmreid_jax.training import optimizers, schedules

CASES = [path for path in goldens.cases("agw") if {"base_lr", "keys"} <= goldens.load(path).json.keys()]
# The experiment whose options give the rates, and what to change in them.
SYSTEMS = {
    "agw": (agw_sysu, {}),
    "ddag_mmgl": (ddag_sysu, {}),
    "ddag_original": (ddag_sysu, {"milestones": (20, 50)}),
    "caj": (caj_sysu, {}),
    "deen": (agw_sysu, {"milestones": (20, 80), "epochs": 151}),
}


def columns():
    return [pytest.param(path, key, id=key) for path in CASES for key in goldens.load(path).json["keys"]]


@pytest.mark.parametrize(("path", "key"), columns())
def test_rates(path, key):
    golden = goldens.load(path)
    assert key in SYSTEMS, f"nothing computes {key}"
    module, changes = SYSTEMS[key]
    section = module.get_config().optim
    section.update(changes)
    section.lr = golden.json["base_lr"]
    expected, options = golden.arrays[key], optimizers.Options.of(section)
    # The first column is the trunk, the others are new layers.
    assert len(expected) == section.epochs
    factors = [options.base_lr_factor] + [1.0] * (expected.shape[1] - 1)
    actual = [schedules.table(options.timetable, options.lr, section.epochs, factor) for factor in factors]
    np.testing.assert_allclose(np.stack(actual, axis=1), expected, rtol=1e-12)
