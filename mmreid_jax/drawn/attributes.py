"""What is drawn: identities (people, vehicles), cameras and shots, as plain data classes sampled from a seed.

Every attribute of an identity takes a handful of values that many identities share, so no single cue names anybody.
Colours are reflectances (linear, 0...1); `nir` is the reflectance in the near infrared, which follows the luminance,
the fabric and the dye (`near_infrared_of`); temperatures run from 0 (clear sky) over 0.3 (surroundings) to 1 (warm
skin, hot engine). `Scenario` says how the subjects of one data set move and in what light. `describe` gives the
attributes as words, for whoever writes captions. What each choice rests on, and how much each cue tells:
docs/drawn_data.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from mmreid_jax.drawn.streams import generator

Colour = tuple[float, float, float]
Kind = Literal["person", "vehicle"]


def _linear(red: int, green: int, blue: int) -> Colour:
    return ((red / 255) ** 2, (green / 255) ** 2, (blue / 255) ** 2)  # the drawn sensors use a square-root curve


COLOURS: Mapping[str, Colour] = {
    "black": _linear(38, 38, 42),
    "grey": _linear(128, 130, 134),
    "white": _linear(232, 231, 226),
    "navy": _linear(40, 50, 92),
    "blue": _linear(62, 108, 182),
    "red": _linear(172, 42, 46),
    "green": _linear(58, 106, 70),
    "beige": _linear(196, 176, 142),
    "brown": _linear(104, 74, 52),
    "purple": _linear(112, 70, 130),
    "yellow": _linear(214, 172, 58),
    "silver": _linear(176, 180, 184),
}
SKINS: Mapping[str, Colour] = {
    "pale": _linear(238, 200, 180),
    "light": _linear(222, 176, 148),
    "tan": _linear(194, 144, 112),
    "brown": _linear(146, 100, 74),
    "dark": _linear(98, 66, 50),
}
HAIR_COLOURS: Mapping[str, Colour] = {
    "black": _linear(34, 30, 30),
    "brown": _linear(84, 58, 40),
    "blond": _linear(196, 160, 104),
    "grey": _linear(160, 158, 156),
    "red": _linear(140, 70, 40),
}
# Fabric -> (brightness in the near infrared, how much body warmth comes through). Neither follows from the colour.
FABRICS: Mapping[str, tuple[float, float]] = {
    "cotton": (0.62, 0.72),
    "linen": (0.90, 0.85),
    "wool": (0.46, 0.40),
    "polyester": (0.76, 0.58),
    "leather": (0.22, 0.28),
    "coated nylon": (0.10, 0.46),
}
# How much of its darkness a dye keeps in the near infrared -> how common it is. Pigments and carbon black absorb there
# as well; some dyes do not, and a black garment comes out bright: figures of SYSU-MM01 and RGBNT201 show both kinds,
# most of them dark. No paper counts them; the shares are choices.
DYES: Mapping[float, float] = {1.0: 6, 0.7: 2, 0.3: 1}
SURROUNDINGS = 0.30
RESERVED_SEEDS = range(1_000_000, 1_000_100)
"""Seeds of the people that trunks are trained on; data sets are drawn with smaller ones, and so are disjoint."""


def luminance(colour: Colour) -> float:
    """Relative luminance of linear red, green and blue (ITU-R BT.709)."""
    return 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]


def near_infrared_of(colour: Colour, body: float, dye: float = 1.0) -> float:
    """Near-infrared reflectance: what is light to the eye mostly stays light, what is dark mostly stays dark.

    Args:
      colour: linear reflectances.
      body: brightness of the material without its dye, 0...1.
      dye: share of the colour's darkness that the dye keeps, an exponent: 1 all of it, 0 none.

    Returns:
      0.75 luminance^(0.6 dye) + 0.3 body, at most 0.95.
    """
    return min(0.95, 0.75 * luminance(colour) ** (0.6 * dye) + 0.30 * body)


@dataclasses.dataclass(frozen=True)
class Garment:
    """One piece of clothing.

    Attributes:
      kind: cut, such as ``"t-shirt"`` or ``"skirt"``.
      colour, accent: names of the main colour and of the pattern's second colour.
      rgb, accent_rgb: their reflectances.
      pattern: ``plain``, ``stripes``, ``checks`` or ``print``.
      period: length of one stripe or check in metres.
      motif: bits of the 5 x 5 picture of a print.
      fabric: key of `FABRICS`.
      nir, accent_nir: near-infrared reflectances.
      temperature: at the surface.
      width: how loosely it hangs, as a factor.
    """

    kind: str
    colour: str
    accent: str
    rgb: Colour
    accent_rgb: Colour
    pattern: str
    period: float
    motif: int
    fabric: str
    nir: float
    accent_nir: float
    temperature: float
    width: float


@dataclasses.dataclass(frozen=True)
class Person:
    """Everything that stays the same about one person; lengths in metres, temperatures in 0...1.

    `warm_spot` is the place where most warmth leaves the upper garment; `hand_temperature` tells cold from warm hands.
    `heat` is the pattern of warmth of the trunk below the garment, whatever that is: chest, waist and hips in front,
    then behind.
    """

    index: int
    sex: str
    height: float
    girth: float
    shoulders: float
    posture: float
    stride: float
    arm_swing: float
    phase: float
    skin: str
    skin_rgb: Colour
    skin_nir: float
    hair: str
    hair_colour: str
    hair_rgb: Colour
    hair_nir: float
    hat: str
    hat_garment: Garment
    glasses: bool
    upper: Garment
    inner: Garment
    lower: Garment
    shoes: Garment
    bag: str
    bag_garment: Garment
    face_temperature: float
    hand_temperature: float
    hair_temperature: float
    warm_spot: str
    heat: tuple[float, ...]
    leg_warmth: float


@dataclasses.dataclass(frozen=True)
class Vehicle:
    """Everything that stays the same about one vehicle; lengths in metres, temperatures in 0...1.

    `engine` places the warm area under the hood, across (-1 right ... 1 left) and along it (0 front ... 1 windscreen).
    """

    index: int
    body: str
    length: float
    width: float
    height: float
    clearance: float
    hood: float
    wheelbase: float
    colour: str
    rgb: Colour
    nir: float
    gloss: float
    bumper: str
    window_tint: float
    window_nir: float
    roof: str
    decal: str
    decal_colour: str
    decal_rgb: Colour
    decal_nir: float
    motif: int
    wheel: str
    wheel_rgb: Colour
    spokes: int
    lights: str
    grille: float
    engine: tuple[float, float]
    engine_temperature: float
    engine_spread: float
    exhaust: str
    brake_temperature: tuple[float, float]
    cabin_temperature: float
    heated_rear_window: bool


@dataclasses.dataclass(frozen=True)
class Camera:
    """A place and a sensor.

    Attributes:
      index: number of the camera, counted from 1 as file names do.
      seed, kind: what the background is drawn from.
      distance, pitch: metres from the camera to the subject, and how steeply it looks down (radians).
      ground, behind: names of the floor and of what stands behind.
      gap: metres from the subject to what stands behind.
      sun: direction of the light in image axes (right, down, towards the camera), unit length.
      cast: gain of the three colours; gain, gamma: exposure and curve of the visible sensor.
      noise: standard deviation at full light, as a share of the range.
      blur: how many pixels one sensor element covers.
      nir_gain, nir_gamma, nir_falloff: strength and curve of the active illumination, how fast it dies to the edges.
      tir_gain, tir_offset, tir_blur: contrast, level and coarseness of the thermal sensor.
    """

    index: int
    seed: int
    kind: Kind
    distance: float
    pitch: float
    ground: str
    behind: str
    gap: float
    sun: tuple[float, float, float]
    cast: Colour
    gain: float
    gamma: float
    noise: float
    blur: float
    nir_gain: float
    nir_gamma: float
    nir_falloff: float
    tir_gain: float
    tir_offset: float
    tir_blur: float


@dataclasses.dataclass(frozen=True)
class Scenario:
    """How the subjects of one data set move past its cameras, and in what light.

    Attributes:
      headings: direction of a walk -> how common: ``towards`` the camera, ``away`` from it, or ``sideways``.
      spread: standard deviation of a passage's heading about its direction, radians.
      turn: how far the subject turns to both sides along a passage, radians.
      leg: images after which the subject takes another direction; 0: it keeps its own.
      lights: ``day``, ``dusk`` and ``night`` -> how common, where the sample does not say.
    """

    headings: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {"towards": 0.40, "away": 0.35, "sideways": 0.25}
    )
    spread: float = 0.22
    turn: float = 0.45
    leg: int = 0
    lights: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"day": 0.60, "dusk": 0.25, "night": 0.15})


CAMPUS = Scenario()
"""The usual scenario."""

HEADINGS: Mapping[str, tuple[float, ...]] = {
    "towards": (0.0,),
    "away": (math.pi,),
    "sideways": (-math.pi / 2, math.pi / 2),
}
"""Directions of a walk as `Shot.azimuth`."""


@dataclasses.dataclass(frozen=True)
class Shot:
    """One moment in front of one camera: all that changes between two images of the same identity.

    Attributes:
      camera: where.
      azimuth: turn of the subject in radians; 0 faces the camera, pi / 2 shows its left side.
      phase: of the walk, radians; stride: 0 stands still, 1 walks at full stride.
      light: ``day``, ``dusk`` or ``night``; brightness: factor on it; glare: 0...1, strength of a lamp in view.
      warmth: factor on how much the subject stands out in the thermal image.
      clothing: added to the temperature of what is worn: somebody comes from a warm room, or from the cold.
      occluder: ``none``, ``pole``, ``hedge``, ``box`` or ``passer-by``; occluder_place: -1...1 across the image.
      zoom: share of the image height (person) or width (vehicle) that the subject fills.
      shift: (right, down) of the crop, as a share of the image size.
      place: 0...1, where along the camera's background; mirrored: background seen the other way round.
      size: (height, width) of the images.
      key: number that places the noise.
    """

    camera: Camera
    azimuth: float
    phase: float
    stride: float
    light: str
    brightness: float
    glare: float
    warmth: float
    clothing: float
    occluder: str
    occluder_place: float
    zoom: float
    shift: tuple[float, float]
    place: float
    mirrored: bool
    size: tuple[int, int]
    key: int


def _pick(random: np.random.Generator, values: Mapping[Any, float] | Sequence[Any]) -> Any:
    """One of `values`; of a mapping, in proportion to the weights."""
    if isinstance(values, Mapping):
        weights = np.fromiter(values.values(), float)
        return list(values)[int(np.searchsorted(np.cumsum(weights) / weights.sum(), random.random(), side="right"))]
    return values[int(random.integers(len(values)))]


def _shade(random: np.random.Generator, colour: Colour, spread: float = 0.10) -> Colour:
    """The colour as one particular piece has it: a little lighter or darker, hardly another hue."""
    factor = math.exp(random.normal(0, spread))
    return tuple(float(np.clip(c * factor * math.exp(random.normal(0, spread / 3)), 0.008, 0.92)) for c in colour)  # type: ignore[return-value]


_UPPER_COLOURS = {
    "black": 5,
    "grey": 3,
    "white": 3,
    "navy": 3,
    "blue": 2,
    "red": 2,
    "green": 2,
    "beige": 2,
    "purple": 1,
}
_LOWER_COLOURS = {"black": 5, "navy": 4, "grey": 3, "blue": 3, "beige": 2, "brown": 1}
_SMALL_COLOURS = {"black": 4, "white": 3, "grey": 2, "brown": 2, "red": 1, "navy": 2, "green": 1}
_PATTERNS = {"plain": 5, "stripes": 2, "checks": 2, "print": 3}
_COVER = {"coat": 0.62, "jacket": 0.78, "hoodie": 0.85, "shirt": 1.0, "t-shirt": 1.06, "inner": 0.9}


def _garment(
    random: np.random.Generator,
    kind: str,
    colours: Mapping[str, float],
    patterns: Mapping[str, float],
    fabrics: Mapping[str, float] | Sequence[str],
) -> Garment:
    colour = _pick(random, colours)
    accent = _pick(
        random, [name for name in ("black", "grey", "white", "blue", "red", "beige", "yellow") if name != colour]
    )
    fabric = _pick(random, fabrics)
    body, through = FABRICS[fabric]
    warmth = through * _COVER.get(kind, 1.0)
    rgb, accent_rgb = _shade(random, COLOURS[colour]), _shade(random, COLOURS[accent])
    return Garment(
        kind=kind,
        colour=colour,
        accent=accent,
        rgb=rgb,
        accent_rgb=accent_rgb,
        pattern=_pick(random, patterns),
        period=_pick(random, (0.05, 0.08, 0.13)),
        motif=int(random.integers(2**15)),
        fabric=fabric,
        nir=near_infrared_of(rgb, body, _pick(random, DYES)),
        accent_nir=near_infrared_of(accent_rgb, body, _pick(random, DYES)),
        temperature=SURROUNDINGS + warmth * (0.92 - SURROUNDINGS),
        width=_pick(random, (0.9, 1.0, 1.12)),
    )


def person_identity(seed: int, index: int) -> Person:
    """The person number `index` of the set `seed`: the same whoever asks, and in whatever order."""
    random = generator(seed, "person", index)
    sex = _pick(random, ("man", "woman"))
    woman = sex == "woman"
    skin = _pick(random, {"pale": 2, "light": 3, "tan": 3, "brown": 2, "dark": 1})
    hair = _pick(
        random, {"short": 2, "bob": 3, "long": 5, "bun": 2} if woman else {"short": 7, "bald": 1, "bob": 1, "long": 0.5}
    )
    hair_colour = _pick(random, {"black": 5, "brown": 3, "blond": 2, "grey": 1, "red": 1})
    upper_kind = _pick(random, {"t-shirt": 4, "shirt": 3, "jacket": 3, "hoodie": 2, "coat": 2})
    lower_kind = _pick(random, {"trousers": 6, "shorts": 2, "skirt": 3} if woman else {"trousers": 7, "shorts": 2})
    plain = {"plain": 1.0}
    warm_fabrics = {"cotton": 2, "linen": 1, "wool": 2, "polyester": 3, "leather": 1.5, "coated nylon": 2}
    light_fabrics = {"cotton": 3, "linen": 2, "wool": 1, "polyester": 3, "coated nylon": 1.5}
    heavy = upper_kind in ("jacket", "coat", "hoodie")
    patterns = {"plain": 3, "print": 1} if upper_kind == "hoodie" else plain if upper_kind == "jacket" else _PATTERNS
    face = _pick(random, (0.84, 0.89, 0.94, 0.99))
    hair_rgb = _shade(random, HAIR_COLOURS[hair_colour])
    return Person(
        index=index,
        sex=sex,
        height=float(np.clip(random.normal(1.66 if woman else 1.77, 0.06), 1.48, 1.98)),
        girth=_pick(random, (0.86, 0.95, 1.04, 1.16, 1.32)),
        shoulders=_pick(random, (0.9, 0.97, 1.04)) * (0.93 if woman else 1.04),
        posture=_pick(random, (-0.02, 0.03, 0.08)),
        stride=_pick(random, (0.34, 0.44, 0.54)),
        arm_swing=_pick(random, (0.18, 0.38, 0.58)),
        phase=float(random.uniform(0, 2 * math.pi)),
        skin=skin,
        skin_rgb=SKINS[skin],
        skin_nir=_pick(random, (0.52, 0.6, 0.68)),
        hair=hair,
        hair_colour=hair_colour,
        hair_rgb=hair_rgb,
        hair_nir=near_infrared_of(hair_rgb, _pick(random, (0.1, 0.35, 0.6))),
        hat=_pick(random, {"none": 7, "cap": 1.5, "beanie": 1}),
        hat_garment=_garment(random, "hat", _SMALL_COLOURS, plain, ("cotton", "wool", "coated nylon")),
        glasses=bool(random.random() < 0.3),
        upper=_garment(random, upper_kind, _UPPER_COLOURS, patterns, warm_fabrics if heavy else light_fabrics),
        inner=_garment(
            random, "inner", {"white": 3, "grey": 2, "black": 2, "red": 1, "blue": 1}, plain, ("cotton", "linen")
        ),
        lower=_garment(
            random,
            lower_kind,
            _LOWER_COLOURS,
            {"plain": 6, "checks": 1} if lower_kind == "skirt" else plain,
            light_fabrics,
        ),
        shoes=_garment(
            random,
            _pick(random, ("sneakers", "boots", "shoes")),
            _SMALL_COLOURS,
            plain,
            ("leather", "polyester", "coated nylon"),
        ),
        bag=_pick(random, {"none": 4, "backpack": 3, "shoulder bag": 2.5, "handbag": 2 if woman else 0.7}),
        bag_garment=_garment(
            random, "bag", _SMALL_COLOURS | {"yellow": 1}, plain, ("leather", "polyester", "coated nylon", "cotton")
        ),
        face_temperature=face,
        hand_temperature=_pick(random, (0.5, 0.64, 0.78, 0.92)),
        hair_temperature=_pick(random, (0.48, 0.58, 0.68)),
        warm_spot=_pick(random, ("chest", "shoulders", "belly", "back", "none")),
        heat=tuple(_pick(random, (-0.09, 0.0, 0.09)) for _ in range(6)),
        leg_warmth=_pick(random, (0.8, 1.0, 1.16)),
    )


# body -> (length, width, height, clearance, hood length, wheelbase share) in metres
BODIES: Mapping[str, tuple[float, float, float, float, float, float]] = {
    "sedan": (4.7, 1.80, 1.46, 0.22, 1.25, 0.58),
    "hatchback": (4.0, 1.72, 1.50, 0.22, 1.00, 0.62),
    "estate": (4.7, 1.82, 1.50, 0.22, 1.20, 0.59),
    "suv": (4.6, 1.88, 1.72, 0.30, 1.15, 0.59),
    "minivan": (4.7, 1.84, 1.78, 0.24, 0.85, 0.62),
    "van": (5.2, 1.95, 2.20, 0.28, 0.65, 0.62),
    "pickup": (5.2, 1.86, 1.80, 0.32, 1.20, 0.60),
    "truck": (5.8, 2.05, 2.55, 0.40, 0.45, 0.58),
}


def vehicle_identity(seed: int, index: int) -> Vehicle:
    """The vehicle number `index` of the set `seed`."""
    random = generator(seed, "vehicle", index)
    body = _pick(
        random, {"sedan": 4, "hatchback": 3, "estate": 2, "suv": 4, "minivan": 2, "van": 2, "pickup": 1, "truck": 1.5}
    )
    length, width, height, clearance, hood, wheelbase = BODIES[body]
    colour = _pick(
        random,
        {"white": 5, "black": 4, "silver": 3, "grey": 3, "red": 2, "blue": 2, "green": 1, "beige": 1, "yellow": 1},
    )
    decal_colour = _pick(
        random, [name for name in ("white", "black", "red", "blue", "yellow", "green") if name != colour]
    )
    wheel_grey = _pick(random, (0.06, 0.22, 0.5))
    body_nir, dye = _pick(random, (0.1, 0.5, 0.9)), _pick(random, DYES)
    rgb, decal_rgb = _shade(random, COLOURS[colour]), _shade(random, COLOURS[decal_colour])
    roofs = {"plain": 4, "rack": 2, "dark roof": 1.5, "sunroof": 1.5, "taxi sign": 1}
    return Vehicle(
        index=index,
        body=body,
        length=length * _pick(random, (0.95, 1.0, 1.05)),
        width=width * _pick(random, (0.97, 1.0, 1.03)),
        height=height * _pick(random, (0.96, 1.0, 1.04)),
        clearance=clearance * _pick(random, (0.9, 1.1)),
        hood=hood * _pick(random, (0.9, 1.0, 1.12)),
        wheelbase=wheelbase,
        colour=colour,
        rgb=rgb,
        nir=near_infrared_of(rgb, body_nir, dye),
        gloss=_pick(random, (0.05, 0.12, 0.2)),
        bumper=_pick(random, {"painted": 3, "black": 2}),
        window_tint=_pick(random, (0.012, 0.03, 0.07)),
        window_nir=_pick(random, (0.03, 0.12, 0.26)),
        roof="plain" if body in ("truck", "pickup") else _pick(random, roofs),
        decal=_pick(random, {"none": 5, "side stripe": 2, "door logo": 2, "lower band": 1.5, "hood stripes": 1}),
        decal_colour=decal_colour,
        decal_rgb=decal_rgb,
        decal_nir=near_infrared_of(decal_rgb, body_nir, dye),
        motif=int(random.integers(2**15)),
        wheel=_pick(random, {"spokes": 3, "disc": 1.5, "steel": 1}),
        wheel_rgb=(wheel_grey, wheel_grey, wheel_grey * 1.03),
        spokes=_pick(random, (5, 6, 8)),
        lights=_pick(random, ("slim", "round", "tall", "wide")),
        grille=_pick(random, (0.3, 0.5, 0.7)),
        engine=(_pick(random, (-0.45, 0.0, 0.45)), _pick(random, (0.3, 0.6))),
        engine_temperature=_pick(random, (0.55, 0.7, 0.85, 1.0)),
        engine_spread=_pick(random, (0.3, 0.45, 0.65)),
        exhaust=_pick(random, ("left", "right", "both", "hidden")),
        brake_temperature=(_pick(random, (0.45, 0.65, 0.9)), _pick(random, (0.4, 0.6, 0.8))),
        cabin_temperature=_pick(random, (0.22, 0.34, 0.46)),
        heated_rear_window=bool(random.random() < 0.35),
    )


def camera(seed: int, kind: Kind, index: int, *, split: str = "train", shift: float = 0.5) -> Camera:
    """Camera number `index` (from 1).

    In any split but ``train`` light and sensor are moved by `shift` (0 not at all ... 1 far). Place,
    height and background belong to the camera and are the same in all splits.
    """
    random = generator(seed, f"{kind} camera", index)
    grounds = (
        ("asphalt", "tiles", "slabs", "grass", "concrete")
        if kind == "person"
        else ("asphalt", "lanes", "concrete", "slabs")
    )
    backs = (
        ("brick wall", "shop front", "hedge", "fence", "hall")
        if kind == "person"
        else ("hedge", "brick wall", "fence", "shop front")
    )
    # Walking through the lists keeps neighbouring cameras different from each other.
    ground = grounds[(index * 2 + seed) % len(grounds)]
    behind = backs[(index * 3 + seed) % len(backs)]
    sun = np.array([random.uniform(-0.9, 0.9), -random.uniform(0.4, 1.0), random.uniform(0.1, 0.7)])
    sun /= np.linalg.norm(sun)
    place = {
        "distance": float(random.uniform(6, 11) if kind == "person" else random.uniform(9, 15)),
        "pitch": float(random.uniform(0.05, 0.34) if kind == "person" else random.uniform(0.10, 0.42)),
        "gap": float(random.uniform(1.5, 6.0) if kind == "person" else random.uniform(3.0, 9.0)),
    }
    # What the white balance of a surveillance camera leaves: a few percent from channel to channel.
    cast = np.exp(random.normal(0, 0.04, 3))
    sensor = {
        "gain": math.exp(random.normal(0, 0.14)),
        "gamma": math.exp(random.normal(0, 0.10)),
        "noise": random.uniform(0.008, 0.022),
        "blur": random.uniform(1.0, 1.7),
        "nir_gain": math.exp(random.normal(0, 0.14)),
        "nir_gamma": math.exp(random.normal(0, 0.10)),
        "nir_falloff": random.uniform(0.1, 0.5),
        "tir_gain": (1.0 if kind == "person" else 1.3) * math.exp(random.normal(0, 0.10)),
        "tir_offset": random.normal(0, 0.03),
        "tir_blur": random.uniform(1.8, 2.6),
    }
    if split != "train":
        moved = generator(seed, f"{kind} camera shift", index)
        towards = moved.choice((-1.0, 1.0), 8)
        cast = cast * np.exp(shift * 0.14 * moved.uniform(-1, 1, 3))
        sensor["gain"] *= math.exp(-0.3 * shift * moved.uniform(0.5, 1))
        sensor["gamma"] *= math.exp(0.2 * shift * towards[0] * moved.uniform(0.6, 1))
        sensor["noise"] *= 1 + shift
        sensor["blur"] *= 1 + 0.3 * shift
        sensor["nir_gain"] *= math.exp(0.24 * shift * towards[1] * moved.uniform(0.6, 1))
        sensor["nir_gamma"] *= math.exp(0.2 * shift * towards[2] * moved.uniform(0.6, 1))
        sensor["nir_falloff"] += 0.2 * shift
        sensor["tir_gain"] *= math.exp(0.24 * shift * towards[3] * moved.uniform(0.6, 1))
        sensor["tir_offset"] += 0.07 * shift * towards[4] * moved.uniform(0.6, 1)
        sensor["tir_blur"] *= 1 + 0.2 * shift
    return Camera(
        index=index,
        seed=seed,
        kind=kind,
        ground=ground,
        behind=behind,
        sun=(float(sun[0]), float(sun[1]), float(sun[2])),
        cast=(float(cast[0]), float(cast[1]), float(cast[2])),
        **place,
        **{name: float(value) for name, value in sensor.items()},
    )


NATIVE_SIZE: Mapping[str, tuple[int, int]] = {"person": (256, 128), "vehicle": (128, 256)}


def shot(
    seed: int,
    identity: int,
    camera_index: int,
    *,
    kind: Kind = "person",
    scene: int = 0,
    frame: int = 0,
    split: str = "train",
    shift: float = 0.5,
    size: tuple[int, int] | None = None,
    light: str | None = None,
    view: int | None = None,
    heading: str | None = None,
    scenario: Scenario = CAMPUS,
) -> Shot:
    """The moment `frame` of the passage of `identity` in front of a camera in a scene (time id).

    What a passage keeps (light, where it begins, which way it goes) is drawn from identity, camera and scene; the rest
    from the frame as well, so that two images of one passage are different views: the subject turns, walks on past
    other things, in sun and shade, and the detector cuts it out in another way. A vehicle's cameras look at it from one
    side each, 45 degrees apart, as in the vehicle data sets.

    Args:
      size: (height, width); the native size of the kind where None.
      light: ``day``, ``dusk`` or ``night``, if it must be that.
      view: side from which a vehicle is seen, 0...7; the camera's number minus one where None.
      heading: one of `HEADINGS`, if a person must go that way.
      scenario: of the data set.
    """
    passage = generator(seed, f"{kind} passage", identity, camera_index, scene)
    moment = generator(seed, f"{kind} moment", identity, camera_index, (scene % 2**31) * 2**31 + frame)
    moved = shift if split != "train" else 0.0
    # Both are drawn always, so that asking for a light changes nothing else.
    drawn_light = _pick(passage, {**scenario.lights, "night": scenario.lights["night"] + 0.10 * moved})
    light = light or drawn_light
    night_glare = float(moment.beta(1.2, 1.6)) if moment.random() < (0.5 if kind == "vehicle" else 0.3) else 0.0
    day_glare = 0.35 if moment.random() < 0.04 else 0.0
    sway = scenario.turn * math.sin(passage.uniform(0, 2 * math.pi) + 1.3 * frame)
    if kind == "vehicle":
        side_seen = camera_index - 1 if view is None else view
        azimuth = side_seen * math.pi / 4 + passage.normal(0, 0.16) + 0.3 * sway + moment.normal(0, 0.08)
    else:
        leg = frame // scenario.leg if scenario.leg else 0
        way = generator(seed, f"{kind} way", identity, camera_index, (scene % 2**31) * 2**31 + leg)
        drawn_heading = _pick(way, scenario.headings)
        middle = HEADINGS[heading or drawn_heading]
        azimuth = _pick(way, middle) + way.normal(0, scenario.spread) + sway + moment.normal(0, 0.12)
    occluders = {"none": 0.80, "pole": 0.06, "hedge": 0.05, "box": 0.05, "passer-by": 0.04}
    side = moment.choice((-1.0, 1.0))
    zoom, down = float(moment.uniform(0.82, 0.97)), float(moment.normal(0, 0.02))
    if kind == "person" and moment.random() < 0.08:  # the detector's box ends above the feet
        zoom = float(moment.uniform(1.05, 1.25))
        down = (zoom - 0.94) / 2
    shaded = moment.random() < 0.25
    shade = 0.55 if shaded and light == "day" else 1.0
    return Shot(
        camera=camera(seed, kind, camera_index, split=split, shift=shift),
        azimuth=float(azimuth),
        phase=float(moment.uniform(0, 2 * math.pi)),
        stride=float(0.08 if passage.random() < 0.12 else passage.uniform(0.7, 1.1)),
        light=light,
        brightness=float(shade * math.exp(passage.normal(0, 0.14) + moment.normal(0, 0.10) - 0.15 * moved)),
        glare=night_glare if light == "night" else day_glare,
        warmth=float(np.clip(passage.normal(1, 0.07), 0.8, 1.2)),
        clothing=float(np.clip(passage.normal(0, 0.04), -0.1, 0.1)) if kind == "person" else 0.0,
        occluder=_pick(moment, occluders),
        occluder_place=float(side * moment.uniform(0.15, 0.9)),
        zoom=zoom,
        shift=(float(moment.normal(0, 0.035)), down),
        place=float((passage.random() + 0.09 * frame + moment.normal(0, 0.02)) % 1.0),
        mirrored=bool(passage.random() < 0.5),
        size=size or NATIVE_SIZE[kind],
        key=int(moment.integers(2**31)),
    )


def describe(identity: Person | Vehicle) -> dict[str, str]:
    """The attributes in words, ``{"upper colour": "red", ...}``: what a witness could say."""
    if isinstance(identity, Vehicle):
        return {
            "body": identity.body,
            "colour": identity.colour,
            "roof": identity.roof,
            "decal": identity.decal,
            "decal colour": identity.decal_colour,
            "wheels": identity.wheel,
            "lights": identity.lights,
            "bumper": identity.bumper,
        }
    build = "slim" if identity.girth < 0.9 else "heavy" if identity.girth > 1.1 else "average"
    return {
        "sex": identity.sex,
        "build": build,
        "hair": identity.hair,
        "hair colour": identity.hair_colour,
        "hat": identity.hat,
        "hat colour": identity.hat_garment.colour,
        "glasses": "yes" if identity.glasses else "no",
        "upper": identity.upper.kind,
        "upper colour": identity.upper.colour,
        "upper pattern": identity.upper.pattern,
        "upper accent": identity.upper.accent,
        "inner colour": identity.inner.colour,
        "lower": identity.lower.kind,
        "lower colour": identity.lower.colour,
        "lower pattern": identity.lower.pattern,
        "shoes": identity.shoes.kind,
        "shoe colour": identity.shoes.colour,
        "bag": identity.bag,
        "bag colour": identity.bag_garment.colour,
    }
