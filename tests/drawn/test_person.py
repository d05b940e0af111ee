"""The drawn images: shapes, determinism, and the physics that tells the three modalities apart."""

import collections
import dataclasses

import numpy as np
import pytest

from mmreid_jax import drawn
from mmreid_jax.drawn import streams

MODALITIES = ("rgb", "nir", "tir")
DRAW = {
    "person": (drawn.person_identity, drawn.draw_person),
    "vehicle": (drawn.vehicle_identity, drawn.draw_vehicle),
}


def draw(kind, identity, moment):
    return DRAW[kind][1](identity, moment)


def clear_shot(kind, index=1, camera=1, light="day", **changes):
    """A shot without glare and without anything in front of the subject."""
    moment = drawn.shot(0, index, camera, kind=kind, light=light)
    return dataclasses.replace(moment, **{"occluder": "none", "glare": 0.0} | changes)


def changed_pixels(one, two):
    """bool [H, W], where two images differ clearly."""
    return (np.abs(one.astype(int) - two.astype(int)).max(axis=-1)) > 25


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


def test_a_hot_engine_shows_in_the_thermal_image_alone():
    for light in ("day", "night"):
        moment = clear_shot("vehicle", azimuth=0.2, light=light)
        vehicle = drawn.vehicle_identity(0, 2)
        cold, hot = (
            draw("vehicle", dataclasses.replace(vehicle, engine_temperature=warmth), moment) for warmth in (0.4, 1.0)
        )
        difference = hot["tir"].astype(int) - cold["tir"].astype(int)
        assert (difference > 20).mean() > 0.03
        # Nothing gets colder, but for the undershoot of the interpolation beside a hot edge.
        assert difference.min() > -0.2 * difference.max()
        np.testing.assert_array_equal(cold["rgb"], hot["rgb"])
        np.testing.assert_array_equal(cold["nir"], hot["nir"])


def test_paint_shows_in_the_visible_image_alone():
    moment = clear_shot("vehicle", azimuth=1.2)
    vehicle = dataclasses.replace(drawn.vehicle_identity(0, 2), decal="none")
    red, blue = (
        draw("vehicle", dataclasses.replace(vehicle, rgb=rgb), moment) for rgb in ((0.5, 0.03, 0.03), (0.03, 0.05, 0.5))
    )
    assert changed_pixels(red["rgb"], blue["rgb"]).mean() > 0.1
    np.testing.assert_array_equal(red["nir"], blue["nir"])
    np.testing.assert_array_equal(red["tir"], blue["tir"])


def test_a_vehicle_shows_the_side_that_the_view_asks_for():
    """Tail lamps are red from behind, and only from behind."""
    vehicle = dataclasses.replace(drawn.vehicle_identity(0, 3), rgb=(0.3, 0.3, 0.3), decal="none", roof="plain")

    def red_share(azimuth):
        image = draw("vehicle", vehicle, clear_shot("vehicle", azimuth=azimuth, zoom=0.95, brightness=1.0))[
            "rgb"
        ].astype(int)
        return ((image[..., 0] > 110) & (image[..., 1] < 70) & (image[..., 2] < 80)).mean()

    assert red_share(np.pi) > 0.004
    assert red_share(0.0) < 0.0005
    views = [drawn.shot(0, 3, 1, kind="vehicle", view=view).azimuth for view in range(8)]
    np.testing.assert_allclose(np.diff(views), np.pi / 4)


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


def test_generators_depend_on_all_coordinates_and_nothing_else():
    def number(*coordinates, seed=0, purpose="a"):
        return float(streams.generator(seed, purpose, *coordinates).random())

    drawn = [number(), number(1), number(0, 1), number(0, 0, 1), number(-1), number(1, seed=1), number(1, purpose="b")]
    assert len(set(drawn)) == len(drawn)
    assert number(1) == drawn[1]


def test_white_noise_has_any_size_and_unit_variance():
    for size in ((8, 8), (256, 128), (1500, 30)):
        noise = streams.white_noise(77, *size)
        assert noise.shape == size
        assert abs(noise.std() - 1) < 0.35
