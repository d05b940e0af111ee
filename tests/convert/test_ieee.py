"""The name map of IEEE: every entry both ways, in the authors' order, whatever modules the network has."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from mmreid_jax.convert import ieee, known, store
from mmreid_jax.convert import layout as layouts
from mmreid_jax.convert.identify import looks_like
from mmreid_jax.errors import UserError
from mmreid_jax.methods import base
from mmreid_jax.testing import goldens, tiny

SWITCHES = [
    {},
    {"model__rem": "off"},
    {"model__rem": "paper"},
    {"model__cim_attention": False},
    {"model__cim": False},
    {"model__cim": False, "model__rem": "off"},
]


def of_goldens():
    """Names and shapes of every network in the golden files, each list once, with sides of at most two."""
    found = {}
    for path in goldens.cases("ieee"):
        listed = goldens.load(path).json.get("state_dict", [])
        small = tuple((name, tuple(min(side, 2) for side in shape)) for name, shape in listed)
        if small:
            found.setdefault(small, path.stem)
    return [pytest.param(names, id=stem) for names, stem in found.items()]


@pytest.mark.parametrize("names", of_goldens())
def test_the_authors_files_round_trip_in_their_order(names):
    entries = dict(goldens.recipe().state_dict(1, names))
    variables, report = layouts.import_state(known.named("ieee"), entries)
    assert set(report.used) == set(entries)
    assert not report.dropped
    exported = layouts.export_state(known.named("ieee"), variables)
    assert list(exported) == list(entries)
    for name, value in entries.items():
        assert exported[name].dtype == value.dtype
        assert exported[name].tobytes() == value.tobytes(), name


def variables_of(method):
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    fill = lambda x: np.asarray(rng.normal(size=x.shape) * 10, x.dtype)  # noqa: E731
    return jax.tree.map(fill, shapes)


@pytest.mark.parametrize("change", SWITCHES, ids=str)
@pytest.mark.parametrize("modalities", [("rgb", "nir", "tir"), ("rgb", "tir")])
def test_every_network_round_trips_and_is_told_apart(change, modalities):
    method = base.build(tiny.config("ieee", **change), base.DataFacts(8, 3, 1, modalities))
    variables = variables_of(method)
    layout = method.convert_layouts()["ieee"]
    exported = layouts.export_state(layout, variables)
    again, _ = layouts.import_state(layout, exported, variables)
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    # The layout that is not told what the file holds finds it out.
    found, _ = layouts.import_state(ieee.layout(modalities), exported, variables)
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    assert list(layouts.export_state(ieee.layout(modalities), variables)) == list(exported)


def test_a_linear_layer_and_a_point_convolution_are_transposed():
    _, method = tiny.method("ieee")
    variables = variables_of(method)
    exported = layouts.export_state(method.convert_layouts()["ieee"], variables)
    params = variables["params"]
    np.testing.assert_array_equal(exported["fc_T.3.0.weight"].T, params["embed"]["tir"]["linear"]["kernel"][3])
    np.testing.assert_array_equal(exported["classifier_N.5.bias"], params["classifier"]["nir"]["bias"][5])
    squeeze = params["attention"]["rgb"]["squeeze"]["kernel"]
    np.testing.assert_array_equal(exported["CA.0.fc.0.weight"][:, :, 0, 0].T, squeeze)
    kernel = params["rest"]["tir"]["conv"]["kernel"]
    np.testing.assert_array_equal(exported["convAvgRest.2.layers.0.weight"][:, :, 0, 0].T, kernel[0, 0])
    np.testing.assert_array_equal(exported["REM.1.param"], params["relation"]["nir"]["gamma"])


def test_a_file_of_another_network_is_named():
    _, method = tiny.method("ieee")
    exported = layouts.export_state(method.convert_layouts()["ieee"], variables_of(method))
    assert "IEEE" in looks_like({name: value.shape for name, value in exported.items()})
    exported.pop("REM.2.conv_value.bias")
    with pytest.raises(UserError, match=r"missing \(REM.2.conv_value.bias\).*IEEE"):
        layouts.import_state(known.named("ieee"), exported)


@pytest.mark.slow(short=True)
def test_imagenet_weights_start_every_stream(tmp_path):
    _, alone = tiny.method("ieee")
    whole = variables_of(alone)
    one = {name: whole[name]["backbone"]["nir"] for name in ("params", "batch_stats")}
    meta = {"layout": "resnet", "arrays": {k: f"{v.dtype} {list(v.shape)}" for k, v in layouts.flatten(one).items()}}
    store.save(tmp_path / "imagenet", one, meta)
    _, method = tiny.method("ieee", init__backbone=str(tmp_path / "imagenet"))
    started = method.start(method.init(jax.random.key(1)))
    for modality in ("rgb", "nir", "tir"):
        got = started["params"]["backbone"][modality]
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, got), one["params"])
