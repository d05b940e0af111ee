"""Attributes of identities and cameras: what the test moves, what a description says, that none names an identity."""

import collections
import dataclasses

import numpy as np
import pytest

from mmreid_jax import drawn
from tests.drawn.shots import DRAW


def test_test_cameras_move_light_and_sensor_but_not_the_place():
    place = ("index", "seed", "kind", "distance", "pitch", "ground", "behind", "gap", "sun")
    for kind in DRAW:
        train = drawn.camera(0, kind, 2)
        assert drawn.camera(0, kind, 2, split="test", shift=0.0) == train
        far = dataclasses.asdict(drawn.camera(0, kind, 2, split="test", shift=1.0))
        near = dataclasses.asdict(drawn.camera(0, kind, 2, split="test", shift=0.3))
        for name, value in dataclasses.asdict(train).items():
            assert (far[name] == value) == (name in place), name
            if name not in place:
                assert np.all(np.abs(np.subtract(far[name], value)) >= np.abs(np.subtract(near[name], value)))
        assert drawn.camera(0, kind, 2, split="train", shift=1.0) == train


@pytest.mark.parametrize("kind", DRAW)
def test_no_single_attribute_names_an_identity(kind):
    words = [drawn.describe(DRAW[kind][0](0, index)) for index in range(300)]
    for attribute in words[0]:
        counts = collections.Counter(word[attribute] for word in words)
        assert 2 <= len(counts) <= 12, attribute
        assert min(counts.values()) >= 3, (attribute, counts)
    assert len({DRAW[kind][0](0, index) for index in range(300)}) == 300


def test_descriptions_are_words_about_what_is_visible():
    person, vehicle = drawn.person_identity(0, 1), drawn.vehicle_identity(0, 1)
    assert drawn.describe(person)["upper colour"] == person.upper.colour
    assert drawn.describe(vehicle)["body"] == vehicle.body
    for description in (drawn.describe(person), drawn.describe(vehicle)):
        assert all(isinstance(value, str) and value for value in description.values())
        assert not any("nir" in key.split() or "temperature" in key for key in description)
