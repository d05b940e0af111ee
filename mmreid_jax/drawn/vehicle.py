"""Drawing a vehicle as three cameras see it: painted metal, glass, lamps and wheels, warm engine, brakes and exhaust.

The body is a skin of small flat facets in three dimensions, (left, forward, up) in metres with the origin on the ground
below the middle. Facets that face the camera are drawn from far to near into a picture of facet numbers at twice the
size; one table look-up per kind of light then colours all pixels.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mmreid_jax.drawn import sensor
from mmreid_jax.drawn.attributes import SURROUNDINGS, Shot, Vehicle, vehicle_identity
from mmreid_jax.drawn.background import backdrop
from mmreid_jax.drawn.occlusion import occlude
from mmreid_jax.drawn.raster import NIR, TIR, Light
from mmreid_jax.drawn.streams import folds, generator

# The top line of each body, from the rear bumper (0) to where the hood begins: places as a share of the length, heights
# as a share of the height. The hood is added by `_stations`.
_TOPS: dict[str, tuple[tuple[float, float], ...]] = {
    "sedan": ((0.0, 0.60), (0.04, 0.66), (0.16, 0.69), (0.30, 0.96), (0.42, 1.0), (0.56, 0.985), (0.72, 0.665)),
    "hatchback": ((0.0, 0.62), (0.03, 0.72), (0.12, 0.94), (0.26, 0.995), (0.44, 1.0), (0.58, 0.97), (0.75, 0.665)),
    "estate": ((0.0, 0.62), (0.03, 0.74), (0.10, 0.95), (0.24, 0.995), (0.42, 1.0), (0.57, 0.98), (0.73, 0.665)),
    "suv": ((0.0, 0.62), (0.02, 0.76), (0.08, 0.95), (0.22, 1.0), (0.42, 1.0), (0.58, 0.98), (0.73, 0.66)),
    "minivan": ((0.0, 0.60), (0.02, 0.76), (0.06, 0.95), (0.22, 1.0), (0.45, 1.0), (0.63, 0.96), (0.83, 0.60)),
    "van": ((0.0, 0.90), (0.01, 0.97), (0.05, 1.0), (0.30, 1.0), (0.55, 1.0), (0.74, 0.95), (0.89, 0.56)),
    "pickup": ((0.0, 0.60), (0.02, 0.62), (0.34, 0.62), (0.37, 0.90), (0.44, 1.0), (0.58, 0.98), (0.73, 0.66)),
    "truck": ((0.0, 0.90), (0.01, 1.0), (0.30, 1.0), (0.63, 1.0), (0.66, 0.98), (0.665, 0.80), (0.90, 0.78)),
}
# Height of the belt line (lower edge of the windows) as a share of the height.
_BELT = {
    "sedan": 0.64,
    "hatchback": 0.62,
    "estate": 0.62,
    "suv": 0.62,
    "minivan": 0.58,
    "van": 0.55,
    "pickup": 0.62,
    "truck": 0.46,
}
# Side windows: (rear, front) places along the car.
_SIDE_WINDOWS: dict[str, tuple[tuple[float, float], ...]] = {
    "sedan": ((0.24, 0.43), (0.45, 0.66)),
    "hatchback": ((0.13, 0.24), (0.26, 0.44), (0.46, 0.69)),
    "estate": ((0.08, 0.23), (0.25, 0.43), (0.45, 0.67)),
    "suv": ((0.08, 0.21), (0.23, 0.42), (0.44, 0.67)),
    "minivan": ((0.06, 0.26), (0.28, 0.48), (0.50, 0.76)),
    "van": ((0.68, 0.86),),
    "pickup": ((0.38, 0.48), (0.50, 0.67)),
    "truck": ((0.70, 0.86),),
}
_PLASTIC = (0.035, 0.036, 0.038, 0.10)
_GLASS_GLOSS = 0.13
_OVERSAMPLE = 2
_SPINS = 3
_AIM = 0.7  # metres above the ground that the camera looks at


@dataclasses.dataclass(frozen=True)
class _Facet:
    """A flat piece.

    Attributes:
      corners: [n, 3], in order; outward: roughly the direction it faces.
      reflectance: red, green, blue and near infrared.
      temperature: None for that of metal at this place, see `_metal_warmth`.
      gloss: how much sky it mirrors; glow: light of a lamp that is switched on, by channel as `reflectance`.
      bias: metres by which a detail lies in front of its ground when facets are ordered.
    """

    corners: np.ndarray
    outward: ArrayLike
    reflectance: tuple[float, ...]
    temperature: float | None = None
    gloss: float = 0.0
    glow: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    bias: float = 0.0


@dataclasses.dataclass(frozen=True)
class _Lamp:
    """A kind of lamp.

    Attributes:
      facing: 1 at the front, -1 at the rear.
      sizes: shape -> (width, height) in metres.
      reach: its outer edge as a share of half the vehicle's width.
      wrap: nearer and farther edge of the part around the corner: share of half the width, metres from the end.
      reflectance, temperature: of the lamp, and of that part.
      glow: its light by channel.
    """

    facing: int
    sizes: dict[str, tuple[float, float]]
    reach: float
    wrap: tuple[tuple[float, float], tuple[float, float]]
    reflectance: tuple[tuple[float, ...], tuple[float, ...]]
    temperature: tuple[float, float]
    glow: tuple[float, ...]


_HEADLAMP = _Lamp(
    facing=1,
    sizes={"slim": (0.40, 0.09), "round": (0.22, 0.20), "tall": (0.18, 0.30), "wide": (0.46, 0.16)},
    reach=0.86,
    wrap=((0.90, 0.10), (0.955, 0.32)),
    reflectance=((0.6, 0.62, 0.64, 0.9), (0.5, 0.52, 0.54, 0.8)),
    temperature=(0.36, 0.34),
    glow=(1.6, 1.5, 1.3, 0.5),
)
_TAIL_LAMP = _Lamp(
    facing=-1,
    sizes={"slim": (0.42, 0.11), "round": (0.18, 0.18), "tall": (0.14, 0.44), "wide": (0.34, 0.20)},
    reach=0.84,
    wrap=((0.90, 0.08), (0.95, 0.24)),
    reflectance=((0.40, 0.02, 0.02, 0.55), (0.40, 0.02, 0.02, 0.55)),
    temperature=(SURROUNDINGS + 0.06, SURROUNDINGS + 0.05),
    glow=(1.0, 0.06, 0.05, 0.10),
)
_PLATE, _PLATE_SPAN = (0.62, 0.62, 0.6, 0.9), (-0.26, 0.26)


class _Builder:
    """Collects the facets of one vehicle."""

    def __init__(self, vehicle: Vehicle, spin: float):
        self.vehicle, self.spin = vehicle, spin
        self.facets: list[_Facet] = []
        self.long, self.half, self.tall = vehicle.length, vehicle.width / 2, vehicle.height
        self.paint = (*vehicle.rgb, vehicle.nir)
        self.glass = (vehicle.window_tint, vehicle.window_tint * 1.15, vehicle.window_tint * 1.25, vehicle.window_nir)
        # Heights of the belt line and of the lower edge of the doors.
        self.belt, self.sill = _BELT[vehicle.body] * vehicle.height, vehicle.clearance + 0.12

    def place(self, share: float) -> float:
        """Forward coordinate of a place along the car (0 rear, 1 front)."""
        return (share - 0.5) * self.long

    def wall(self, side: float) -> float:
        """Where details on the doors of one side (1 left, -1 right) lie, just outside of the body."""
        return side * (self.half + 0.004)

    def add(self, corners: ArrayLike, outward: ArrayLike, reflectance: tuple[float, ...], **more: Any) -> None:
        """Adds a facet; `more` are further attributes of `_Facet`."""
        self.facets.append(_Facet(np.asarray(corners, float), outward, reflectance, **more))


def _ring(builder: _Builder, share: float, top: float) -> np.ndarray:
    """Cross-section of the body at one place: [n, 3] from the sill over belt and roof edge to the roof's middle."""
    vehicle = builder.vehicle
    boxy = vehicle.body in ("van", "truck", "minivan")
    # In plan view the corners of the body are rounded.
    end = min(share, 1 - share) * builder.long
    round_off = 1 - 0.16 * max(0.0, 1 - end / 0.45) ** 2
    half = builder.half * round_off
    low = vehicle.clearance
    waist = min(builder.belt, top)
    lean = 0.03 if boxy else 0.14
    cabin = max(0.0, top - waist)
    inward = half * lean * min(1.0, cabin / (0.35 * builder.tall)) if builder.tall else 0.0
    forward = builder.place(share)
    edge_drop = 0.03 + 0.04 * min(1.0, cabin / 0.3)
    points = [
        (half * 0.93, low),
        (half * 0.985, low + 0.10),
        (half * 1.0, low + 0.45 * (waist - low)),
        (half * 0.99, low + 0.75 * (waist - low)),
        (half * 0.955, waist),
        (half * 0.955 - 0.55 * inward, waist + 0.5 * (cabin - edge_drop) if cabin > edge_drop else waist + 0.2 * cabin),
        (half * 0.955 - inward - 0.02, waist + cabin - edge_drop if cabin > edge_drop else waist + 0.4 * cabin),
        (half * 0.82 - inward, top - 0.008),
        (half * 0.45, top + 0.012),
        (0.0, top + 0.02),
    ]
    return np.array([(x, forward, z) for x, z in points])


def _stations(builder: _Builder) -> tuple[np.ndarray, np.ndarray]:
    """Places along the car where the skin is cut, and the height of the top line there."""
    vehicle = builder.vehicle
    profile = list(_TOPS[vehicle.body])
    hood_start = 1 - vehicle.hood / vehicle.length
    profile[-1] = (min(max(profile[-1][0], hood_start - 0.04), 0.93), profile[-1][1])
    belt = _BELT[vehicle.body]
    nose = 0.50 if vehicle.body not in ("van", "truck", "minivan") else 0.48
    profile += [(0.955, belt * 0.93 + 0.01), (0.985, nose + 0.06), (1.0, nose)]
    if vehicle.body == "truck":
        profile[-4:] = [(0.93, 0.74), (0.985, 0.44), (0.995, 0.42), (1.0, 0.40)]
    places = np.array([p for p, _ in profile])
    heights = np.array([h for _, h in profile])
    cuts = {round(float(p), 4) for p in np.linspace(0, 1, 25)} | {round(float(p), 4) for p in places}
    for rear, front in _SIDE_WINDOWS[vehicle.body]:
        cuts |= {rear, front}
    stations = np.array(sorted(cuts))
    keep = np.concatenate([[True], np.diff(stations) > 0.004])
    stations = stations[keep]
    return stations, np.interp(stations, places, heights) * vehicle.height


Material = tuple[tuple[float, ...], float, float | None]


@dataclasses.dataclass(frozen=True)
class _Slice:
    """The piece of the skin between two stations: its middle (0...1), rise of the top line, and what lies there."""

    middle: float
    slope: float
    lowest: float
    windowed: bool
    front_screen: bool
    rear_screen: bool


def _slice(vehicle: Vehicle, places: Sequence[float], tops: Sequence[float]) -> _Slice:
    belt = _BELT[vehicle.body] * vehicle.height
    middle = (places[0] + places[1]) / 2
    slope = (tops[1] - tops[0]) / max((places[1] - places[0]) * vehicle.length, 1e-6)
    closed_rear = vehicle.body in ("van", "truck")
    return _Slice(
        middle=middle,
        slope=slope,
        lowest=min(tops),
        windowed=any(rear <= middle <= front for rear, front in _SIDE_WINDOWS[vehicle.body])
        and min(tops) > 1.05 * belt,
        front_screen=slope < -0.25 and max(tops) > 1.06 * belt and middle > 0.4,
        rear_screen=slope > 0.28 and min(tops) > belt and middle < 0.4 and not closed_rear,
    )


def _material(vehicle: Vehicle, piece: _Slice, ring: int) -> Material:
    """(reflectance, gloss, temperature or None for that of metal) of a slice between `ring` and the next."""
    glass = (vehicle.window_tint, vehicle.window_tint * 1.15, vehicle.window_tint * 1.25, vehicle.window_nir)
    decal = (*vehicle.decal_rgb, vehicle.decal_nir)
    metal = vehicle.gloss
    screen = piece.front_screen or piece.rear_screen
    roof = piece.lowest > vehicle.height * (0.93 if vehicle.body != "truck" else 0.72)
    bumper = ring == 1 and vehicle.bumper == "black" and abs(piece.middle - 0.5) > 0.43
    if ring == 0 or bumper:
        return _PLASTIC, metal, None
    if ring in (4, 5) and piece.windowed:
        return glass, _GLASS_GLOSS, vehicle.cabin_temperature
    if ring >= 7 and piece.front_screen:
        return glass, _GLASS_GLOSS, vehicle.cabin_temperature - 0.05
    if ring >= 7 and piece.rear_screen:
        return glass, _GLASS_GLOSS, 0.62 if vehicle.heated_rear_window else vehicle.cabin_temperature - 0.04
    if vehicle.body == "truck" and piece.middle < 0.655 and ring >= 3 and vehicle.decal == "none":
        return (0.62, 0.62, 0.60, 0.55), metal, None
    if ring >= 6 and roof and vehicle.roof == "dark roof":
        return (0.02, 0.02, 0.022, 0.08), metal, None
    if ring >= 8 and roof and vehicle.roof == "sunroof" and 0.36 < piece.middle < 0.52:
        return glass, _GLASS_GLOSS, vehicle.cabin_temperature - 0.08
    striped = (
        (vehicle.decal == "side stripe" and ring == 2 and 0.08 < piece.middle < 0.92)
        or (vehicle.decal == "lower band" and ring == 1)
        or (vehicle.decal == "hood stripes" and ring == 8 and not screen)
    )
    return decal if striped else (*vehicle.rgb, vehicle.nir), metal, None


def _skin(builder: _Builder) -> None:
    """Side panels, windows, hood, roof, windscreens."""
    vehicle = builder.vehicle
    stations, tops = _stations(builder)
    rings = [_ring(builder, s, t) for s, t in zip(stations, tops, strict=True)]
    for i in range(len(stations) - 1):
        piece = _slice(vehicle, stations[i : i + 2].tolist(), tops[i : i + 2].tolist())
        for j in range(len(rings[i]) - 1):
            quad = np.array([rings[i][j], rings[i + 1][j], rings[i + 1][j + 1], rings[i][j + 1]])
            reflectance, gloss, temperature = _material(vehicle, piece, j)
            for mirror in (1.0, -1.0):
                outward = (mirror * (1.0 if j < 7 else 0.2), -piece.slope * (j >= 6), 0.15 if j < 6 else 1.0)
                builder.add(quad * (mirror, 1, 1), outward, reflectance, gloss=gloss, temperature=temperature)
    _ends(builder, rings[0], rings[-1])


def _ends(builder: _Builder, rear: np.ndarray, front: np.ndarray) -> None:
    """Front and rear faces with grille, lamps, plates and bumpers."""
    vehicle = builder.vehicle
    for ring, facing in ((rear, -1.0), (front, 1.0)):
        for j in range(len(ring) - 1):
            left, right = ring[[j, j + 1]], ring[[j + 1, j]] * (-1, 1, 1)
            colour = _PLASTIC if j == 0 or (vehicle.bumper == "black" and j == 1) else builder.paint
            builder.add([*left, *right], (0, facing, 0.05), colour, gloss=vehicle.gloss)
    _front_details(builder, front[4, 2] if vehicle.body != "truck" else 0.42 * vehicle.height)
    _rear_details(builder, rear[4, 2] if vehicle.body not in ("van", "truck") else 0.5 * vehicle.height)


def _front_details(builder: _Builder, face: float) -> None:
    """Grille, number plate and headlamps on a front face that ends at a height of `face`."""
    vehicle = builder.vehicle
    low, nose = vehicle.clearance, builder.long / 2
    bottom, top = low + 0.30 * (face - low), low + (0.45 + 0.35 * vehicle.grille) * (face - low)
    wide = builder.half * (0.35 + 0.4 * vehicle.grille)
    engine = SURROUNDINGS + (vehicle.engine_temperature - SURROUNDINGS) * 0.9
    _panel(builder, nose, 1, (-wide, wide), (bottom, top), (0.015, 0.015, 0.017, 0.05), engine)
    _panel(builder, nose + 0.01, 1, _PLATE_SPAN, (low + 0.16, low + 0.27), _PLATE, SURROUNDINGS)
    for side in (-1, 1):
        _lamp(builder, _HEADLAMP, side, low + 0.80 * (face - low))


def _rear_details(builder: _Builder, face: float) -> None:
    """Lamps, exhaust, plate and the windows of a van on a rear face that ends at a height of `face`."""
    vehicle = builder.vehicle
    low, half, tail = vehicle.clearance, builder.half, -builder.long / 2
    for side in (-1, 1):
        _lamp(builder, _TAIL_LAMP, side, low + 0.78 * (face - low))
        if vehicle.exhaust in ("both", "left" if side > 0 else "right"):
            centre = side * half * 0.6
            span, heights = (centre - 0.09, centre + 0.09), (low - 0.06, low + 0.07)
            _panel(builder, tail - 0.03, -1, span, heights, (0.05, 0.05, 0.05, 0.2), 1.0)
    bottom = low + 0.34 * (face - low)
    _panel(builder, tail - 0.01, -1, _PLATE_SPAN, (bottom, bottom + 0.11), _PLATE, SURROUNDINGS)
    if vehicle.body == "van":
        heights = (0.60 * vehicle.height, 0.84 * vehicle.height)
        for span in ((-half * 0.72, -0.06), (0.06, half * 0.72)):
            _panel(builder, tail - 0.005, -1, span, heights, builder.glass, vehicle.cabin_temperature)


def _lamp(builder: _Builder, lamp: _Lamp, side: int, lift: float) -> None:
    """A lamp on one side (1 left, -1 right) with its middle at a height of `lift`."""
    half, end = builder.half, lamp.facing * builder.long / 2
    width, height = lamp.sizes[builder.vehicle.lights]
    inner, outer = side * (half * lamp.reach - width), side * half * lamp.reach
    low, high = lift - height / 2, lift + height / 2
    _panel(
        builder,
        end + lamp.facing * 0.005,
        lamp.facing,
        (min(inner, outer), max(inner, outer)),
        (low, high),
        lamp.reflectance[0],
        lamp.temperature[0],
        glow=lamp.glow,
        rounded=builder.vehicle.lights == "round",
    )
    # Lamps wrap around the corner of the body.
    (near, near_back), (far, far_back) = lamp.wrap
    builder.add(
        [
            (side * half * near, end - lamp.facing * near_back, low),
            (side * half * near, end - lamp.facing * near_back, high),
            (side * half * far, end - lamp.facing * far_back, high),
            (side * half * far, end - lamp.facing * far_back, low),
        ],
        (side, lamp.facing * 0.5, 0),
        lamp.reflectance[1],
        bias=0.12,
        temperature=lamp.temperature[1],
        glow=tuple(0.4 * channel for channel in lamp.glow),
    )


def _panel(
    builder: _Builder,
    forward: float,
    facing: int,
    across: tuple[float, float],
    heights: tuple[float, float],
    reflectance: tuple[float, ...],
    temperature: float,
    *,
    glow: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0),
    rounded: bool = False,
) -> None:
    """A flat detail on the front (facing 1) or rear (-1)."""
    (x0, x1), (z0, z1) = across, heights
    if rounded:
        angles = np.linspace(0, 2 * math.pi, 12, endpoint=False)
        corners = [
            ((x0 + x1) / 2 + (x1 - x0) / 2 * math.cos(a), forward, (z0 + z1) / 2 + (z1 - z0) / 2 * math.sin(a))
            for a in angles
        ]
    else:
        corners = [(x0, forward, z0), (x1, forward, z0), (x1, forward, z1), (x0, forward, z1)]
    builder.add(corners, (0, facing, 0), reflectance, temperature=temperature, glow=glow, bias=0.15, gloss=0.05)


def _wheels(builder: _Builder) -> None:
    """Four wheels; brakes warm the rims."""
    vehicle = builder.vehicle
    half_base = vehicle.wheelbase * vehicle.length / 2
    for forward, brake in zip((half_base + 0.05, -half_base + 0.05), vehicle.brake_temperature, strict=True):
        for side in (-1.0, 1.0):
            _wheel(builder, forward, side, brake)


def _wheel(builder: _Builder, forward: float, side: float, brake: float) -> None:
    """A wheel with arch, tyre, rim and spokes on one side (1 left, -1 right); `brake` is the temperature of its rim."""
    vehicle = builder.vehicle
    radius = {"suv": 0.37, "pickup": 0.38, "truck": 0.40, "van": 0.35}.get(vehicle.body, 0.32)
    outer = side * builder.half
    disc = functools.partial(_disc, builder, np.array([outer, forward, radius]), side)
    tyre = (0.018, 0.018, 0.019, 0.06)
    disc(radius * 1.17, 0.0, (0.008, 0.008, 0.009, 0.02), lift=0.03, temperature=0.34, bias=0.04)
    for a, b in itertools.pairwise(np.linspace(0, 2 * math.pi, 15)):
        tread = [
            (out, forward + radius * math.cos(t), radius + radius * math.sin(t))
            for t, out in ((a, outer), (b, outer), (b, outer - side * 0.2), (a, outer - side * 0.2))
        ]
        outward = (0, math.cos((a + b) / 2), math.sin((a + b) / 2))
        builder.add(tread, outward, tyre, temperature=0.42, bias=0.0)
    disc(radius, 0.005, tyre, temperature=0.44, bias=0.06)
    rim = (*vehicle.wheel_rgb, 0.5) if vehicle.wheel != "steel" else (0.05, 0.05, 0.052, 0.25)
    ground = (0.02, 0.02, 0.02, 0.06) if vehicle.wheel == "spokes" else rim
    disc(radius * 0.66, 0.01, ground, temperature=brake, bias=0.08)
    if vehicle.wheel != "spokes":
        hub = tuple(0.5 * c for c in rim)
        disc(radius * 0.22, 0.012, hub, count=10, temperature=brake + 0.05, bias=0.10)
        return
    wide = 0.17 if vehicle.spokes > 5 else 0.24
    for n in range(vehicle.spokes):
        turn = builder.spin + 2 * math.pi * n / vehicle.spokes
        tips = [(turn - wide, 0.66), (turn + wide, 0.66), (turn + 0.5, 0.12), (turn - 0.5, 0.12)]
        corners = [
            (outer + side * 0.012, forward + radius * r * math.cos(t), radius + radius * r * math.sin(t))
            for t, r in tips
        ]
        builder.add(corners, (side, 0, 0), rim, temperature=brake - 0.05, bias=0.10)


def _disc(
    builder: _Builder,
    centre: np.ndarray,
    side: float,
    size: float,
    out: float,
    colour: tuple[float, ...],
    *,
    lift: float = 0.0,
    count: int = 22,
    **more: float,
) -> None:
    """A disc of radius `size` that faces to the side, `out` metres from the wheel's `centre` and `lift` above it."""
    angles = np.linspace(0, 2 * math.pi, count, endpoint=False)
    offsets = [np.full(count, side * out), size * np.cos(angles), size * np.sin(angles) + lift]
    builder.add(centre + np.stack(offsets, axis=1), (side, 0, 0), colour, **more)


def _extras(builder: _Builder) -> None:
    """Roof rack or taxi sign, mirrors, door handles and lines, logo on the doors."""
    vehicle = builder.vehicle
    if vehicle.roof == "rack":
        _roof_rack(builder)
    if vehicle.roof == "taxi sign":
        _taxi_sign(builder)
    for side in (-1.0, 1.0):
        _mirror(builder, side)
        _doors(builder, side)
        if vehicle.decal == "door logo":
            _logo(builder, side)


def _roof_rack(builder: _Builder) -> None:
    """Two rails along the roof and three bars across."""
    vehicle = builder.vehicle
    inset = builder.half * (0.72 if vehicle.body != "van" else 0.85)
    rear, front = builder.place(0.2), builder.place(0.52)
    dark = (0.03, 0.03, 0.032, 0.12)
    for side in (-1.0, 1.0):
        x, low, high = side * inset, builder.tall + 0.03, builder.tall + 0.03 + 0.06
        rail = [(x, rear, low), (x, front, low), (x, front, high), (x, rear, high)]
        builder.add(rail, (side, 0, 0), dark, bias=0.2, temperature=0.28)
    for share in (0.24, 0.36, 0.48):
        y, z = builder.place(share), builder.tall + 0.09
        bar = [(-inset, y - 0.04, z), (inset, y - 0.04, z), (inset, y + 0.04, z), (-inset, y + 0.04, z)]
        builder.add(bar, (0, 0, 1), dark, bias=0.3, temperature=0.26)


def _taxi_sign(builder: _Builder) -> None:
    """A lit box on the roof, narrower at its top."""
    y, low, high = builder.place(0.44), builder.tall + 0.02, builder.tall + 0.02 + 0.17
    lit: dict[str, Any] = {"bias": 0.3, "temperature": 0.42, "glow": (0.6, 0.5, 0.2, 0.1)}
    yellow = (0.7, 0.6, 0.2, 0.7)
    for facing in (1, -1):
        end = y + facing * 0.08
        face = [(-0.25, end, low), (0.25, end, low), (0.22, end, high), (-0.22, end, high)]
        builder.add(face, (0, facing, 0), yellow, **lit)
    for side in (1, -1):
        bottom, top = side * 0.25, side * 0.22
        face = [(bottom, y - 0.08, low), (bottom, y + 0.08, low), (top, y + 0.08, high), (top, y - 0.08, high)]
        builder.add(face, (side, 0, 0), yellow, **lit)


def _mirror(builder: _Builder, side: float) -> None:
    """The outside mirror of one side."""
    vehicle, belt = builder.vehicle, builder.belt
    place = builder.place(_SIDE_WINDOWS[vehicle.body][-1][1] - 0.03)
    base, tip = side * (builder.half + 0.02), side * (builder.half + 0.20)
    shell = builder.paint if vehicle.bumper == "painted" else _PLASTIC
    for facing in (1, -1):
        y = place + facing * 0.08
        face = [(base, y, belt), (tip, y, belt + 0.03), (tip, y, belt + 0.17), (base, y, belt + 0.15)]
        builder.add(face, (0, facing, 0), shell, bias=0.1, gloss=0.05)
    rear, front, low, high = place - 0.08, place + 0.08, belt + 0.02, belt + 0.17
    cap = [(tip, rear, low), (tip, front, low), (tip, front, high), (tip, rear, high)]
    builder.add(cap, (side, 0, 0), builder.paint, bias=0.1)


def _doors(builder: _Builder, side: float) -> None:
    """The seam and the handle of each door of one side."""
    wall, low, belt = builder.wall(side), builder.sill, builder.belt
    seam, grip = (tuple(share * c for c in builder.paint) for share in (0.45, 0.6))
    for rear, _ in _SIDE_WINDOWS[builder.vehicle.body][-2:]:
        y = builder.place(rear - 0.01)
        line = [(wall, y - 0.012, low), (wall, y + 0.012, low), (wall, y + 0.012, belt), (wall, y - 0.012, belt)]
        builder.add(line, (side, 0, 0), seam, bias=0.12)
        start, end = builder.place(rear + 0.02), builder.place(rear + 0.02) + 0.17
        bottom, top = belt - 0.13, belt - 0.09
        handle = [(wall, start, bottom), (wall, end, bottom), (wall, end, top), (wall, start, top)]
        builder.add(handle, (side, 0, 0), grip, bias=0.14)


def _logo(builder: _Builder, side: float) -> None:
    """A 5 x 5 picture on the doors of one side, mirrored so that both sides read the same."""
    vehicle, wall, low = builder.vehicle, builder.wall(side), builder.sill
    start, cell = builder.place(0.40), 0.11
    height = (builder.belt - low) * 0.17
    for row in range(5):
        for column in range(5):
            if vehicle.motif >> (3 * row + min(column, 4 - column)) & 1:
                y, z = start + column * cell, low + 0.05 + row * height
                corners = [(wall, y, z), (wall, y + cell, z), (wall, y + cell, z + height), (wall, y, z + height)]
                builder.add(corners, (side, 0, 0), (*vehicle.decal_rgb, vehicle.decal_nir), bias=0.13)


@dataclasses.dataclass(frozen=True)
class _Mesh:
    """All facets of one vehicle as arrays; facet k has the corners ``points[starts[k]:ends[k]]``.

    `heat` is the part of the temperature that comes from the engine, and varies with the occasion.
    """

    points: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    normal: np.ndarray
    reflectance: np.ndarray
    temperature: np.ndarray
    heat: np.ndarray
    gloss: np.ndarray
    glow: np.ndarray
    bias: np.ndarray


def _metal_warmth(vehicle: Vehicle, place: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Temperature of painted metal, which mirrors the cold sky above, and what the engine beneath adds; [n] each."""
    left, forward, up = place.T
    base = SURROUNDINGS + 0.05 - 0.16 * np.maximum(0.0, normal[:, 2]) + 0.05 * np.maximum(0.0, 0.7 - up)
    side, along = vehicle.engine
    engine = (
        side * vehicle.width / 2,
        vehicle.length / 2 - vehicle.hood * along,
        0.8 * vehicle.height * _BELT[vehicle.body],
    )
    spread = 0.5 + vehicle.engine_spread
    reach = (0.8 * spread, 0.75 * spread, 0.6)
    squared = sum(((x - x0) / r) ** 2 for x, x0, r in zip((left, forward, up), engine, reach, strict=True))
    return base, (vehicle.engine_temperature - 0.25) * 0.85 * np.exp(-squared)


@functools.lru_cache(maxsize=96)
def _mesh(vehicle: Vehicle, spin: int) -> _Mesh:
    """The vehicle with its wheels turned by `spin` steps."""
    builder = _Builder(vehicle, 2 * math.pi * spin / (_SPINS * vehicle.spokes))
    _skin(builder)
    _wheels(builder)
    _extras(builder)
    facets = builder.facets
    counts = np.array([len(facet.corners) for facet in facets])
    ends = np.cumsum(counts)
    starts = ends - counts
    points = np.concatenate([facet.corners for facet in facets])
    outward = np.array([facet.outward for facet in facets], float)
    # The diagonals span the facet; where they do not, it has no area and any normal will do.
    normal = np.cross(points[starts + 2] - points[starts], points[ends - 1] - points[starts + 1])
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    normal = np.where(length < 1e-9, outward, normal) / np.where(length < 1e-9, 1.0, length)
    normal *= np.where((normal * outward).sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    metal, heat = _metal_warmth(vehicle, np.add.reduceat(points, starts) / counts[:, None], normal)
    temperatures = np.array([math.nan if facet.temperature is None else facet.temperature for facet in facets])
    return _Mesh(
        points=points,
        starts=starts,
        ends=ends,
        normal=normal,
        reflectance=np.array([facet.reflectance for facet in facets]),
        temperature=np.where(np.isnan(temperatures), metal, temperatures),
        heat=np.where(np.isnan(temperatures), heat, 0.0),
        gloss=np.array([facet.gloss for facet in facets]),
        glow=np.array([facet.glow for facet in facets]),
        bias=np.array([facet.bias for facet in facets]),
    )


def _project(points: np.ndarray, shot: Shot) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(right [n], down [n], depth [n]) of points [n, 3] as the shot's camera sees them, with unit focal length."""
    cos, sin = math.cos(shot.azimuth), math.sin(shot.azimuth)
    x = points[:, 0] * cos - points[:, 1] * sin
    y = -points[:, 0] * sin - points[:, 1] * cos + shot.camera.distance * math.cos(shot.camera.pitch)
    z = points[:, 2] - _AIM - shot.camera.distance * math.sin(shot.camera.pitch)
    depth = y * math.cos(shot.camera.pitch) - z * math.sin(shot.camera.pitch)
    up = y * math.sin(shot.camera.pitch) + z * math.cos(shot.camera.pitch)
    return x / depth, -up / depth, depth


def _eye(shot: Shot) -> np.ndarray:
    """Where the camera is, in body axes."""
    away = shot.camera.distance * math.cos(shot.camera.pitch)
    return np.array(
        [
            away * math.sin(shot.azimuth),
            away * math.cos(shot.azimuth),
            _AIM + shot.camera.distance * math.sin(shot.camera.pitch),
        ]
    )


def _shade(mesh: _Mesh, shot: Shot, light: Light) -> np.ndarray:
    """float32 [n, 5], radiance and temperature of every facet."""
    cos, sin = math.cos(shot.azimuth), math.sin(shot.azimuth)
    left, forward, up = mesh.normal.T
    right, away = left * cos - forward * sin, -left * sin - forward * cos
    low, high = math.cos(shot.camera.pitch), math.sin(shot.camera.pitch)
    towards, down = up * high - away * low, -(away * high + up * low)
    normal = (right, down, towards)
    # Smooth paint and glass mirror the sky where they look up and the ground where they look down.
    sky = 1 / (1 + np.exp(-9 * (2 * np.maximum(towards, 0) * up - 0.2)))
    mirror = mesh.gloss * (0.15 + 0.85 * sky)
    out = np.empty((len(up), 5), np.float32)
    out[:, :3] = mesh.reflectance[:, :3] * light.visible(normal)[:, None] + mirror[:, None]
    out[:, NIR] = mesh.reflectance[:, 3] * light.infrared(normal) + 0.5 * mirror * (1 - 0.6 * light.lamp)
    out[:, TIR] = mesh.temperature + mesh.heat * shot.warmth
    if shot.light != "day":
        # Lamps shine as brightly at night: this undoes the darkness that the sensor applies to all light.
        out[:, :3] += 0.8 / sensor.level(shot) * mesh.glow[:, :3]
        out[:, NIR] += mesh.glow[:, 3]
    return out


def _paint_vehicle(canvas: np.ndarray, vehicle: Vehicle, shot: Shot, light: Light) -> None:
    """Paints one vehicle over the canvas [5, H, W], in place."""
    from PIL import Image, ImageDraw

    height, width = shot.size
    mesh = _mesh(vehicle, int(shot.phase * 2) % _SPINS)
    x, y, depth = _project(mesh.points, shot)
    # The crop follows the vehicle; crops are resized to one shape, so long sides shrink and short fronts stretch.
    scale_x = shot.zoom * width / (x.max() - x.min())
    scale_y = shot.zoom * 0.96 * height / (y.max() - y.min())
    scale_x, scale_y = min(scale_x, 1.35 * scale_y), min(scale_y, 1.35 * scale_x)
    origin_x = width * (0.5 + shot.shift[0]) - (x.max() + x.min()) / 2 * scale_x
    origin_y = height * (0.5 + shot.shift[1]) - (y.max() + y.min()) / 2 * scale_y
    _cast_shadow(canvas, vehicle, shot, (scale_x, scale_y), (origin_x, origin_y))
    places = np.stack([x * scale_x + origin_x, y * scale_y + origin_y], axis=1) * _OVERSAMPLE - 0.5
    corners = places.ravel().tolist()
    distance = np.add.reduceat(depth, mesh.starts) / (mesh.ends - mesh.starts) - mesh.bias
    facing = ((_eye(shot) - mesh.points[mesh.starts]) * mesh.normal).sum(axis=1) > 0
    order = np.argsort(-distance, kind="stable")
    picture = Image.new("I", (width * _OVERSAMPLE, height * _OVERSAMPLE))
    draw = ImageDraw.Draw(picture)
    starts, ends = (2 * mesh.starts).tolist(), (2 * mesh.ends).tolist()
    for k in order[facing[order]].tolist():
        draw.polygon(corners[starts[k] : ends[k]], fill=k + 1)
    numbers = np.asarray(picture)
    table = np.concatenate([np.zeros((1, 5), np.float32), _shade(mesh, shot, light)]).T.copy()
    colour = np.zeros((5, height, width), np.float32)
    cover = np.zeros((height, width), np.float32)
    for i in range(_OVERSAMPLE):
        for j in range(_OVERSAMPLE):
            part = np.ascontiguousarray(numbers[i::_OVERSAMPLE, j::_OVERSAMPLE])
            for channel in range(5):
                colour[channel] += table[channel].take(part)
            cover += part > 0
    colour /= _OVERSAMPLE**2
    cover /= _OVERSAMPLE**2
    top, left = generator(shot.key, "dirt").integers(0, 256, 2).tolist()
    dirt = 1 + 0.03 * folds()[top : top + height, left : left + width]
    colour[:TIR] *= dirt
    canvas *= 1 - cover
    canvas += colour


def _cast_shadow(
    canvas: np.ndarray, vehicle: Vehicle, shot: Shot, scale: tuple[float, float], origin: tuple[float, float]
) -> None:
    """Darkens, and below the engine warms, the ground under the vehicle."""
    from PIL import Image, ImageDraw, ImageFilter

    height, width = shot.size
    half, long = vehicle.width / 2 + 0.15, vehicle.length / 2 + 0.1
    outline = np.array([(half, -long, 0.0), (half, long, 0.0), (-half, long, 0.0), (-half, -long, 0.0)])
    x, y, _ = _project(outline, shot)
    x, y = x * scale[0] + origin[0], y * scale[1] + origin[1]
    picture = Image.new("L", (width, height))
    ImageDraw.Draw(picture).polygon([(float(a), float(b)) for a, b in zip(x, y, strict=True)], fill=255)
    soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.03 * height)), np.float32) / 255
    canvas[:NIR] *= 1 - 0.75 * soft
    canvas[NIR] *= 1 - 0.6 * soft
    canvas[TIR] += 0.10 * vehicle.engine_temperature * soft


def draw_vehicle(identity: Vehicle, shot: Shot) -> dict[str, np.ndarray]:
    """One vehicle at one moment: ``{"rgb", "nir", "tir"}``, uint8 [H, W, 3] each, of exactly the same scene."""
    canvas = backdrop(shot)
    light = sensor.lighting(shot)
    if shot.occluder == "passer-by":
        stranger = vehicle_identity(shot.camera.seed, -2 - shot.key % 1000)
        aside = dataclasses.replace(
            shot,
            azimuth=shot.azimuth + 0.3,
            zoom=0.55 * shot.zoom,
            shift=(math.copysign(0.36, shot.occluder_place), shot.shift[1] - 0.2),
        )
        _paint_vehicle(canvas, stranger, aside, light)
    _paint_vehicle(canvas, identity, shot, light)
    occlude(canvas, shot, light)
    return sensor.expose(canvas, shot)
