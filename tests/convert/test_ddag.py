"""The name map of DDAG's files: what the authors' hold, and every ablation of ours."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from mmreid_jax.convert import known
from mmreid_jax.convert import layout as layouts
from mmreid_jax.testing import goldens, tiny
from tests.methods.variants import DDAG_ABLATIONS, ddag_variables_of


def names_of_files():
    """Names and shapes of the networks in the golden files, with sides of at most two."""
    found = []
    for path in goldens.cases("ddag"):
        listed = goldens.load(path).json.get("state_dict", [])
        if isinstance(listed, list):
            small = [(name, [min(side, 2) for side in shape]) for name, shape in listed]
            found += [pytest.param(small, id=path.stem)] if small else []
    return found


@pytest.mark.parametrize("names", names_of_files())
def test_the_authors_files_round_trip(names):
    """What the network never uses is dropped, and written again so that strict loaders get every key."""
    entries = dict(goldens.recipe().state_dict(1, names))
    layout = known.named("ddag")
    variables, report = layouts.import_state(layout, entries)
    assert "graph" in variables["params"]
    exported = layouts.export_state(layout, variables)
    assert set(exported) == set(entries)
    for name, value in entries.items():
        assert exported[name].shape == value.shape, name
        assert exported[name].dtype == value.dtype, name
        assert name in report.dropped or exported[name].tobytes() == value.tobytes(), name
    dead = {name.rsplit(".", 1)[0] for name in report.dropped}
    assert {"classifier1", "classifier2", "wpa.W.0", "wpa.W.1", "base_resnet.base.conv1"} <= dead
    assert "visible_module.visible.layer1.0.conv1" in dead
    again, _ = layouts.import_state(layout, exported)
    for wanted, got in zip(*map(jax.tree.leaves, (variables, again)), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("change", DDAG_ABLATIONS, ids=str)
def test_every_ablation_round_trips_and_is_told_apart(change):
    config, method = tiny.method("ddag", **change)
    variables = ddag_variables_of(config)
    entries = layouts.export_state(method.convert_layouts()["ddag"], variables)
    assert any(name.startswith("wpa.") for name in entries) == config.model.wpa
    assert any(name.startswith("out_att.") for name in entries) == config.model.graph
    back, _ = layouts.import_state(method.convert_layouts()["ddag"], entries, jax.tree.map(np.zeros_like, variables))
    for wanted, got in zip(*map(jax.tree.leaves, (variables, back)), strict=True):
        np.testing.assert_array_equal(got, wanted)
