"""What a data set says, and who finds it."""

from __future__ import annotations

import dataclasses
import importlib

import pytest

from mmreid_jax import datasets
from mmreid_jax.data.records import View
from mmreid_jax.datasets.base import Known
from mmreid_jax.errors import UserError


@pytest.mark.parametrize("name", datasets.names())
def test_every_data_set_says_all_there_is_to_say(name):
    found = datasets.get(name)
    assert (found.name, found.folders.name.partition("/")[0]) == (name, name)
    assert set(found.published) == set(found.splits) == {"train", "query", "gallery"}
    assert found.description.endswith(".")
    assert found.citation.startswith("@")
    assert set(found.release_notes) == {found.version}
    assert (found.captions is None) == (found.drawing.captions is None)
    assert found.drawing.name == name
    assert found.drawing.root == found.folders.folder
    assert found.drawing.configs == found.parts


def test_no_protocol_has_two_meanings():
    own = [(name, each) for name in datasets.names() for each in _protocols(datasets.get(name))]
    names = [each.name for _, each in own]
    assert {name for name in names if names.count(name) > 1} == {"rgbnt"}
    assert set(names) <= set(datasets.protocols())


def _protocols(dataset):
    return (*dataset.protocols, *dataset.peculiar_protocols)


def test_parts_are_the_same_data_set_with_other_folders():
    third = datasets.get("regdb/trial_3")
    assert (third.part, datasets.get("regdb").part) == ("trial_3", "trial_1")
    assert third.folders.name == "regdb/trial_3"
    assert any("_3.txt" in each for each in third.folders.required)
    assert datasets.parts("regdb")[2] == "regdb/trial_3"
    assert datasets.parts("llcm") == ()


def test_views_are_modalities_or_parts_of_composites():
    assert datasets.get("rgbnt201").views() == {name: View(name) for name in ("rgb", "nir", "tir")}
    assert datasets.get("regdb").views() == {name: View("image") for name in ("rgb", "tir")}
    vehicles = datasets.get("rgbnt100")
    assert vehicles.views("reference")["tir"] == View("composite", (256, 768))
    assert vehicles.views() == vehicles.views("thermal")
    with pytest.raises(UserError, match="rgbnt100_third is 'both'; it must be one of thermal, reference"):
        vehicles.views("both")


def test_what_is_not_published_is_unknown():
    bare = dataclasses.replace(datasets.get("rgbnt201"), published={})
    assert bare.known("train") == Known()
    bare.check("rgbnt201")


def test_the_builders_of_tfds_are_these_data_sets():
    for name in datasets.names():
        builder = importlib.import_module(f"tfds_builders.{name}.{name}_dataset_builder").Builder
        assert builder.DATASET is datasets._defined(name)
