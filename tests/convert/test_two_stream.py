"""The name map of the AGW family: every entry accounted for and exported, live parts exactly."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from mmreid_jax.convert import known, two_stream
from mmreid_jax.convert import layout as layouts
from mmreid_jax.convert.identify import looks_like
from mmreid_jax.errors import UserError
from mmreid_jax.models.resnet import RESNETS
from mmreid_jax.testing import goldens, tiny


def of_goldens():
    """Names and shapes of every network in the golden files, each list once, with sides of at most two."""
    found = {}
    for suite in ("agw", "caj"):
        for path in goldens.cases(suite):
            listed = goldens.load(path).json.get("state_dict", [])
            small = tuple((name, tuple(min(side, 2) for side in shape)) for name, shape in listed)
            if small:
                found.setdefault(small, path.stem)
    return [pytest.param(names, id=stem) for names, stem in found.items()]


@pytest.mark.parametrize("names", of_goldens())
def test_the_authors_files_are_read_whole_and_written_for_strict_loaders(names):
    entries = dict(goldens.recipe().state_dict(1, names))
    # 1x1 convolutions keep their sides, others have two.
    entries = {
        name: value[..., :1, :1] if "NL_" in name and value.ndim == 4 else value for name, value in entries.items()
    }
    variables, report = layouts.import_state(known.named("agw"), entries)
    assert set(report.used) | set(report.dropped) == set(entries)
    assert report.dropped
    exported = layouts.export_state(known.named("agw"), variables)
    assert set(exported) == set(entries)
    for name, value in entries.items():
        assert exported[name].dtype == value.dtype
        assert exported[name].shape == value.shape
        if name in report.used:
            assert exported[name].tobytes() == value.tobytes(), name
    again, _ = layouts.import_state(known.named("agw"), exported)
    jax.tree.map(np.testing.assert_array_equal, again, variables)


@pytest.mark.parametrize("shared_from", range(6))
def test_dead_parts_are_copies_of_the_live_ones(shared_from):
    network = RESNETS["resnet_micro"]
    _, method = tiny.method(
        "agw",
        model__backbone="resnet_micro",
        model__shared_from=shared_from,
        model__non_local=((3, 0),) * (shared_from < 4),
    )
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: np.asarray(rng.normal(size=x.shape) * 10, x.dtype), shapes)
    layout = method.convert_layouts()["agw"]
    exported = layouts.export_state(layout, variables)
    again, report = layouts.import_state(layout, exported, variables)
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    assert not report.kept
    trunks = ("thermal_module.thermal.", "visible_module.visible.", "base_resnet.base.")
    own = {name.removeprefix(trunk) for trunk in trunks for name in exported if name.startswith(trunk)}
    assert all(f"{trunk}{name}" in exported for trunk in trunks for name in own)
    for part in range(len(network["stages"]) + 1):
        name = f"layer{part}.0.conv2.weight" if part else "conv1.weight"
        infrared, visible, base = (exported[trunk + name] for trunk in trunks)
        assert np.array_equal(infrared, visible) == (part >= shared_from)
        assert np.array_equal(visible, base)


def test_non_local_blocks_are_numbered_within_their_stage():
    rules = two_stream.non_local_blocks(two_stream.AGW_BLOCKS).rules
    found = {rule.source: rule.target for rule in rules}
    assert found["NL_2.1.theta.weight"] == "params/backbone/shared/non_local2_3/theta/kernel"
    assert found["NL_3.2.W.1.running_var"] == "batch_stats/backbone/shared/non_local3_5/norm/var"


def test_a_base_file_is_no_agw_network():
    _, agw = tiny.method("agw")
    _, base = tiny.method("agw", model__non_local=())
    like = jax.eval_shape(agw.init, jax.random.key(0))
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(base.init, jax.random.key(0)))
    exported = layouts.export_state(base.convert_layouts()["agw"], variables)
    with pytest.raises(UserError, match=r"NL_1\.0"):
        layouts.import_state(agw.convert_layouts()["agw"], exported, like)
    assert looks_like({name: value.shape for name, value in exported.items()}).startswith("a two-stream network")
