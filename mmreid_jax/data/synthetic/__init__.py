"""Drawn people and vehicles with visible, near-infrared and thermal physics.

`write` fills a folder in the real layout of a data set, `plan` says what it would write, `contact_sheet` shows it.
`person_identity`, `vehicle_identity` and `shot` sample what `draw_person` and `draw_vehicle` draw; `describe` puts the
attributes into words.
"""

from mmreid_jax.data.synthetic.attributes import (
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
from mmreid_jax.data.synthetic.layouts import LAYOUTS, Layout, Sample, plan
from mmreid_jax.data.synthetic.person import draw_person
from mmreid_jax.data.synthetic.sheet import contact_sheet
from mmreid_jax.data.synthetic.vehicle import draw_vehicle
from mmreid_jax.data.synthetic.writer import DRAWING_VERSION, Summary, draw_sample, read_marker, write

__all__ = [
    "DRAWING_VERSION",
    "LAYOUTS",
    "RESERVED_SEEDS",
    "Camera",
    "Garment",
    "Layout",
    "Person",
    "Sample",
    "Scenario",
    "Shot",
    "Summary",
    "Vehicle",
    "camera",
    "contact_sheet",
    "describe",
    "draw_person",
    "draw_sample",
    "draw_vehicle",
    "person_identity",
    "plan",
    "read_marker",
    "shot",
    "vehicle_identity",
    "write",
]
