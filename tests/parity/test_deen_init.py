"""What a fresh DEEN is drawn from, and how large it is, against figures of the authors' code."""

from __future__ import annotations

import functools
import importlib
import math

import deen_kinds
import jax
import numpy as np
import pytest

from mmreid_jax.convert import layout as layouts
from mmreid_jax.methods import base

CASES = [
    pytest.param(golden, dataset, id=f"{golden.name}-{dataset}")
    for golden in deen_kinds.of_kind("init")
    for dataset in golden.json["facts"]
]


@functools.cache
def fresh(dataset, classes):
    """A fresh network in the authors' names, and the names that it trains."""
    config = importlib.import_module(f"configs.deen_{dataset}").get_config()
    method = base.build(config, base.DataFacts(classes, 4, 1, ("rgb", "nir")))
    variables = jax.tree.map(np.asarray, jax.jit(method.init)(jax.random.key(0)))
    return layouts.export_state(method.convert_layouts()["deen"], variables)


@pytest.mark.thorough
@pytest.mark.parametrize(("golden", "dataset"), CASES)
def test_fresh_parameters(golden, dataset):
    facts = golden.json["facts"][dataset]
    drawn = fresh(dataset, facts["classifier.weight"]["shape"][0])
    parameters = {name: wanted for name, wanted in facts.items() if "shape" in wanted}
    # What is left says that a fresh aggregation gives back what it gets, which tests/models/test_deen.py shows.
    for name in facts.keys() - parameters.keys():
        assert set(facts[name]["max_abs_difference_from_x_high"].values()) == {0.0}, name
    for name, wanted in parameters.items():
        found = drawn[name].astype(np.float64)
        assert list(found.shape) == wanted["shape"], name
        # Of as many numbers each deviation is off by this share once in ten thousand draws, and so are the ends.
        error = 4 / math.sqrt(2 * found.size)
        assert abs(found.std() - wanted["std"]) <= 2 * error * max(wanted["std"], 1e-12) + 1e-5, name
        for end in ("min", "max"):
            assert abs(getattr(found, end)() - wanted[end]) <= 0.35 * (wanted["max"] - wanted["min"]) + 1e-12, name
    total = sum(value.size for name, value in drawn.items() if not name.split(".")[-1].startswith(("running", "num_")))
    assert total == golden.json["parameters"][dataset]
