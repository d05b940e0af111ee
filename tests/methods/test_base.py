"""What the program may ask of a method, and what it finds."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.methods import base
from mmreid_jax.testing import tiny

ABILITIES = {
    "htt": {base.Adapts, base.Attends},
    "ieee": {base.HasMaps, base.Remembers},
    "agw": {base.HasMaps},
    "caj": {base.HasMaps},
    "ddag": {base.HasMaps, base.Remembers},
    "deen": {base.HasMaps},
    "hetero_center": {base.HasMaps},
    "mmgl": {base.HasMaps, base.Examines},
    "demo_moe": {base.Attends},
    "mdreid": {base.Attends},
    "tvi_lfm": {base.HasMaps, base.Loads},
}
EVERY = {base.Adapts, base.Remembers, base.HasMaps, base.Attends, base.Examines, base.Loads}


@pytest.mark.parametrize("name", base.names())
def test_what_each_method_can_do_beside_the_usual(name):
    _, method = tiny.method(name)
    assert isinstance(method, base.Method)
    assert {ability for ability in EVERY if isinstance(method, ability)} == ABILITIES[name]


def test_a_resnet_of_htt_has_maps_and_its_vit_attends():
    _, method = tiny.method("htt", model__backbone="resnet_micro")
    assert isinstance(method, base.HasMaps)
    assert not isinstance(method, base.Attends)
    _, method = tiny.method("htt")
    assert method.grid == method.backbone.grid


def test_shapes_read_no_file():
    for name, key in (("htt", "backbone"), ("ieee", "backbone"), ("agw", "from_mmgl"), ("tvi_lfm", "clip")):
        _, method = tiny.method(name, **{f"init__{key}": "nowhere"})
        assert base.shapes(method)["params"]
        with pytest.raises(UserError, match="nowhere"):
            method.start(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), base.shapes(method)))


def test_an_unknown_method_is_named_beside_those_that_there_are():
    with pytest.raises(UserError, match="unknown method 'agww'; available: agw, caj"):
        base.build(SimpleNamespace(method="agww"), tiny.facts())


def test_a_value_that_is_no_choice_is_named_with_its_key():
    with pytest.raises(UserError, match=r"config.model.head is 'x'; choose one of a, b"):
        base.check_choices(None, {"loss.kind": (1, [1, 2]), "model.head": ("x", ("a", "b"))})


def test_classes_are_counted_or_given_but_never_too_few():
    facts = tiny.facts(identities=8)
    for given, expected in ((0, 8), (8, 8), (171, 171)):
        assert base.classes_of(SimpleNamespace(model=SimpleNamespace(num_classes=given)), facts) == expected
    with pytest.raises(UserError, match="num_classes is 7, but the training data have 8 identities"):
        base.classes_of(SimpleNamespace(model=SimpleNamespace(num_classes=7)), facts)


def test_a_loss_without_memory_gets_an_empty_one():
    ends = np.array([4, 8])
    assert base.start_memory(tiny.method("agw")[1], ends) == {}
    assert base.start_memory(tiny.method("ddag", loss__graph_weight=-1.0)[1], ends)
