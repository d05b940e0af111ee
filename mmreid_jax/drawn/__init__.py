"""Drawn people and vehicles with visible, near-infrared and thermal physics.

`write` fills a folder in the layout of a data set, `contact_sheet` shows it; `mmreid_jax.datasets.drawing` does both
for a data set by name. `person_identity`, `vehicle_identity` and `shot` sample what `draw_person` and `draw_vehicle`
draw; `describe` puts the attributes into words.
"""

from mmreid_jax.drawn.attributes import (
    RESERVED_SEEDS,
    Camera,
    Garment,
    Person,
    Scenario,
    Shot,
    Vehicle,
    camera,
    describe,
    person_identity,
    shot,
    vehicle_identity,
)
from mmreid_jax.drawn.drawings import Drawing, DrawnSample, Size
from mmreid_jax.drawn.person import draw_person
from mmreid_jax.drawn.sheet import contact_sheet
from mmreid_jax.drawn.vehicle import draw_vehicle
from mmreid_jax.drawn.writer import DRAWING_VERSION, Rendering, Summary, draw_sample, read_marker, write

__all__ = [
    "DRAWING_VERSION",
    "RESERVED_SEEDS",
    "Camera",
    "Drawing",
    "DrawnSample",
    "Garment",
    "Person",
    "Rendering",
    "Scenario",
    "Shot",
    "Size",
    "Summary",
    "Vehicle",
    "camera",
    "contact_sheet",
    "describe",
    "draw_person",
    "draw_sample",
    "draw_vehicle",
    "person_identity",
    "read_marker",
    "shot",
    "vehicle_identity",
    "write",
]
