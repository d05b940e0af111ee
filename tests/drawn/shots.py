"""Shots and images for the tests of drawing."""

import dataclasses

import numpy as np

from mmreid_jax import drawn

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
