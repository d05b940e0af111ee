"""The drawn images: shapes, determinism, and the physics that tells the three modalities apart."""

import dataclasses

import numpy as np
import pytest

from mmreid_jax import drawn
from tests.drawn.shots import DRAW, changed_pixels, clear_shot, draw

MODALITIES = ("rgb", "nir", "tir")


@pytest.mark.parametrize("kind", DRAW)
@pytest.mark.parametrize("size", [None, (64, 32), (32, 64), (40, 24)])
def test_three_aligned_images_of_the_asked_size(kind, size):
    identity, _ = DRAW[kind]
    moment = drawn.shot(3, 5, 2, kind=kind, size=size)
    images = draw(kind, identity(3, 5), moment)
    assert tuple(images) == MODALITIES
    expected = size or {"person": (256, 128), "vehicle": (128, 256)}[kind]
    for image in images.values():
        assert image.dtype == np.uint8
        assert image.shape == (*expected, 3)
        assert image.std() > 2
    for name in ("nir", "tir"):
        np.testing.assert_array_equal(images[name][..., 0], images[name][..., 1])
        np.testing.assert_array_equal(images[name][..., 0], images[name][..., 2])


@pytest.mark.parametrize("kind", DRAW)
def test_the_same_whatever_was_drawn_before(kind):
    identity, _ = DRAW[kind]
    first = draw(kind, identity(1, 4), drawn.shot(1, 4, 3, kind=kind, frame=2))
    for other in (9, 8):
        draw(kind, identity(2, other), drawn.shot(2, other, 1, kind=kind))
    again = draw(kind, identity(1, 4), drawn.shot(1, 4, 3, kind=kind, frame=2))
    for name in MODALITIES:
        np.testing.assert_array_equal(first[name], again[name])


@pytest.mark.parametrize("kind", DRAW)
@pytest.mark.parametrize("change", [{"seed": 1}, {"identity": 6}, {"camera": 2}, {"frame": 1}, {"scene": 1}])
def test_every_coordinate_matters(kind, change):
    identity, _ = DRAW[kind]

    def image(seed=0, identity_index=5, camera=1, frame=0, scene=0):
        moment = drawn.shot(seed, identity_index, camera, kind=kind, frame=frame, scene=scene)
        return draw(kind, identity(seed, identity_index), moment)["tir"]

    change = {"identity_index" if key == "identity" else key: value for key, value in change.items()}
    assert (image() != image(**change)).mean() > 0.2


@pytest.mark.parametrize("kind", DRAW)
def test_night_darkens_only_what_needs_light(kind):
    identity, _ = DRAW[kind]
    for index in range(1, 6):
        day, night = (
            draw(kind, identity(0, index), clear_shot(kind, index, light=light)) for light in ("day", "night")
        )
        assert night["rgb"].mean() < 0.6 * day["rgb"].mean()
        np.testing.assert_array_equal(night["tir"], day["tir"])
        assert 0.6 < night["nir"].mean() / day["nir"].mean() < 1.4


def with_garment(person, **changes):
    return dataclasses.replace(person, upper=dataclasses.replace(person.upper, pattern="plain", **changes))


def test_dye_shows_in_the_visible_image_alone():
    moment = clear_shot("person", azimuth=0.3)
    person = drawn.person_identity(0, 1)
    red, blue = (
        draw("person", with_garment(person, rgb=rgb), moment) for rgb in ((0.5, 0.03, 0.03), (0.03, 0.05, 0.5))
    )
    assert changed_pixels(red["rgb"], blue["rgb"]).mean() > 0.04
    np.testing.assert_array_equal(red["nir"], blue["nir"])
    np.testing.assert_array_equal(red["tir"], blue["tir"])


def test_fabric_shows_in_the_near_infrared_alone():
    moment = clear_shot("person", azimuth=0.3)
    person = drawn.person_identity(0, 1)
    dark, bright = (draw("person", with_garment(person, nir=nir), moment) for nir in (0.1, 0.8))
    assert changed_pixels(dark["nir"], bright["nir"]).mean() > 0.04
    np.testing.assert_array_equal(dark["rgb"], bright["rgb"])
    np.testing.assert_array_equal(dark["tir"], bright["tir"])


def test_insulation_shows_in_the_thermal_image_alone():
    moment = clear_shot("person", azimuth=0.3)
    person = drawn.person_identity(0, 1)
    thick, thin = (draw("person", with_garment(person, temperature=warmth), moment) for warmth in (0.35, 0.85))
    assert changed_pixels(thick["tir"], thin["tir"]).mean() > 0.04
    np.testing.assert_array_equal(thick["rgb"], thin["rgb"])
    np.testing.assert_array_equal(thick["nir"], thin["nir"])


def test_a_woven_pattern_is_kept_in_the_near_infrared():
    moment = clear_shot("person", azimuth=0.0)
    person = drawn.person_identity(0, 1)
    upper = dataclasses.replace(person.upper, pattern="stripes", period=0.08, nir=0.2, accent_nir=0.7)
    striped = draw("person", dataclasses.replace(person, upper=upper, bag="none"), moment)["nir"]
    plain = draw("person", with_garment(dataclasses.replace(person, bag="none"), nir=0.2), moment)["nir"]
    chest = striped[90:130, 64, 0].astype(float), plain[90:130, 64, 0].astype(float)
    assert np.ptp(chest[0]) > 2 * np.ptp(chest[1])


def test_skin_is_warmer_than_a_bag():
    moment = clear_shot("person", azimuth=2.6)  # seen obliquely from behind: bag and arms in view
    for index in range(1, 5):
        person = dataclasses.replace(drawn.person_identity(0, index), bag="backpack")
        image = draw("person", person, moment)
        no_skin = draw("person", dataclasses.replace(person, skin_rgb=(0.0, 0.9, 0.0)), moment)
        green = dataclasses.replace(person.bag_garment, rgb=(0.0, 0.9, 0.0))
        no_bag = draw("person", dataclasses.replace(person, bag_garment=green), moment)
        skin, bag = (changed_pixels(image["rgb"], other["rgb"]) for other in (no_skin, no_bag))
        assert skin.sum() > 100
        assert bag.sum() > 500
        assert image["tir"][skin & ~bag].mean() > image["tir"][bag & ~skin].mean() + 20
