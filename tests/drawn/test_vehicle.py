"""Drawn vehicles: paint, engine, and the side that the view asks for."""

import dataclasses

import numpy as np

from mmreid_jax import drawn
from tests.drawn.shots import changed_pixels, clear_shot, draw


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
