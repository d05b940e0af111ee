"""The name map of pre-trained MMGL networks."""

import jax
import numpy as np
import pytest

from mmreid_jax.convert import layout as layouts
from tests.methods.variants import mmgl_variant


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"model__shared_from": 0},
        {"model__perm_head_hidden": 6},
        {"model__proj_head": "conv", "model__proj_shared": True},
        {"loss__perm_weight": 0.0},
        {"loss__cl_weight": 0.0},
    ],
)
def test_the_flat_layout_round_trips(overrides):
    _, method, variables = mmgl_variant(**overrides)
    variables = jax.tree.map(np.asarray, variables)
    layout = method.convert_layouts()["mmgl"]
    entries = layouts.export_state(layout, variables)
    assert any(name.startswith("base_resnet.base.layer1.0.") for name in entries)
    again, report = layouts.import_state(layout, entries, variables)
    assert not report.dropped
    for one, other in zip(*map(jax.tree.leaves, (variables, again)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_heads_and_dead_parts_of_a_file_are_told_apart():
    """A file of the authors' code may hold whole ResNets; what a stream does not use is dropped with its reason."""
    _, method, variables = mmgl_variant()
    layout = method.convert_layouts()["mmgl"]
    entries = layouts.export_state(layout, jax.tree.map(np.asarray, variables))
    dead = {"base_resnet.base.conv1.weight": entries["visible_module.visible.conv1.weight"]}
    _, report = layouts.import_state(layout, {**entries, **dead}, variables)
    assert list(report.dropped) == list(dead)
