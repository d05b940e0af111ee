"""Drawing a walking person as three cameras see it: jointed limbs, cloth with patterns, warm skin, cold bags.

Body axes are (left, forward, up) in metres with the origin on the ground below the hips. The body is posed in three
dimensions, seen by a camera that looks down on it, and painted part by part from far to near.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from mmreid_jax.drawn import sensor
from mmreid_jax.drawn.attributes import SURROUNDINGS, Garment, Person, Shot, person_identity
from mmreid_jax.drawn.background import backdrop
from mmreid_jax.drawn.occlusion import occlude
from mmreid_jax.drawn.raster import NIR, TIR, Light, Patch, ball, paint, smoothstep, tube
from mmreid_jax.drawn.streams import folds, generator

Point = tuple[float, float, float]

# The trunk from hem (0) over waist and chest to neck (1): places, half-widths and half-depths in metres.
_TRUNK_PLACES = (0.0, 0.14, 0.3, 0.45, 0.6, 0.75, 0.88, 0.94, 0.98, 1.0)
_TRUNK_WIDTH = {
    "man": (0.160, 0.158, 0.152, 0.156, 0.168, 0.178, 0.172, 0.140, 0.085, 0.062),
    "woman": (0.168, 0.160, 0.138, 0.132, 0.144, 0.154, 0.148, 0.120, 0.074, 0.054),
}
_TRUNK_DEPTH = {
    "man": (0.112, 0.112, 0.106, 0.108, 0.115, 0.116, 0.098, 0.082, 0.066, 0.058),
    "woman": (0.116, 0.110, 0.097, 0.096, 0.106, 0.122, 0.098, 0.078, 0.062, 0.053),
}
_BELLY = (0.9, 1.05, 1.25, 1.25, 1.05, 0.8, 0.5, 0.35, 0.2, 0.1)
_NECK_BASE, _HIP, _SHOULDER = 0.848, 0.515, 0.797
_THIGH, _SHIN, _ANKLE, _UPPER_ARM, _FOREARM = 0.240, 0.235, 0.042, 0.165, 0.150
_HEAD = (0.079, 0.094, 0.118)
_HEAT_LEVELS = (0.80, 0.50, 0.18)  # chest, waist and hips, as shares of the way from hem to neck
_HEMS = {"t-shirt": 0.475, "shirt": 0.47, "jacket": 0.465, "hoodie": 0.46, "coat": 0.46}


@dataclasses.dataclass(frozen=True)
class _Side:
    """Joints of one leg and one arm, in body axes (metres)."""

    hip: Point
    knee: Point
    ankle: Point
    toe: Point
    heel: Point
    shoulder: Point
    elbow: Point
    hand: Point


@dataclasses.dataclass(frozen=True)
class _Pose:
    """The left and the right side, and the joints between them."""

    sides: tuple[_Side, _Side]
    pelvis: Point
    neck: Point
    head: Point


def _side(person: Person, shot: Shot, side: float) -> _Side:
    """Left (1) or right (-1) joints of the walk at this phase, with the hips at the origin.

    The leg swings as a pendulum and its knee bends while it comes forward; the arm swings against the leg.
    """
    tall = person.height
    phase = shot.phase + 0.15 * person.phase + (0.0 if side > 0 else math.pi)
    swing = person.stride * shot.stride
    thigh = swing * math.sin(phase) + 0.03
    bend = 0.06 + 1.05 * min(shot.stride, 1) * max(0.0, math.cos(phase)) ** 1.5 * (0.5 + swing)
    shin = thigh - bend
    hip_half = side * 0.088 * (0.7 + 0.3 * person.girth)
    knee = (hip_half * 0.95, _THIGH * tall * math.sin(thigh), -_THIGH * tall * math.cos(thigh))
    ankle = (hip_half * 0.85, knee[1] + _SHIN * tall * math.sin(shin), knee[2] - _SHIN * tall * math.cos(shin))
    foot = (math.cos(0.7 * shin), math.sin(0.7 * shin))
    upper = -person.arm_swing * shot.stride * math.sin(phase)
    fore = upper + 0.22 + 0.45 * person.arm_swing * shot.stride * max(0.0, -math.sin(phase))
    out = side * math.sin(0.10 + 0.10 * max(0.0, person.girth - 1))
    lean, rise = _lean(person, shot), (_SHOULDER - _HIP) * tall
    shoulder_half = side * 0.172 * person.shoulders * (0.8 + 0.2 * person.girth)
    shoulder = (shoulder_half, rise * math.sin(lean), rise * math.cos(lean))
    arm = _UPPER_ARM * tall
    elbow = (shoulder[0] + arm * out, shoulder[1] + arm * math.sin(upper), shoulder[2] - arm * math.cos(upper))
    arm = _FOREARM * tall
    return _Side(
        hip=(hip_half, 0.0, 0.0),
        knee=knee,
        ankle=ankle,
        toe=(ankle[0] + side * 0.035, ankle[1] + 0.165 * foot[0], ankle[2] - 0.045 + 0.165 * foot[1]),
        heel=(ankle[0], ankle[1] - 0.045 * foot[0], ankle[2] - 0.045 - 0.045 * foot[1]),
        shoulder=shoulder,
        elbow=elbow,
        hand=(elbow[0] + side * 0.01, elbow[1] + arm * math.sin(fore), elbow[2] - arm * math.cos(fore)),
    )


def _lean(person: Person, shot: Shot) -> float:
    return person.posture + 0.05 * shot.stride


def _pose(person: Person, shot: Shot) -> _Pose:
    """The whole body, standing on the ground with its lowest foot."""
    lean, tall = _lean(person, shot), person.height
    left, right = _side(person, shot, 1.0), _side(person, shot, -1.0)
    ground = 0.012 - min(foot[2] for side in (left, right) for foot in (side.toe, side.heel))

    def raised(side: _Side) -> _Side:
        joints = {field.name: getattr(side, field.name) for field in dataclasses.fields(side)}
        return _Side(**{name: (joint[0], joint[1], joint[2] + ground) for name, joint in joints.items()})

    rise = (_NECK_BASE - _HIP) * tall
    neck = (0.0, rise * math.sin(lean), rise * math.cos(lean) + ground)
    return _Pose(
        sides=(raised(left), raised(right)),
        pelvis=(0.0, 0.0, ground),
        neck=neck,
        head=(0.0, neck[1] + 0.02 + 0.03 * lean, neck[2] + (1 - _NECK_BASE) * tall - _HEAD[2] + 0.005),
    )


def _between(start: Point, end: Point, share: float) -> Point:
    """The point at this share of the way, beyond the end above 1."""
    x, y, z = (a + share * (b - a) for a, b in zip(start, end, strict=True))
    return x, y, z


class _View:
    """The camera's view of one body: where a point lands in the image, how large a metre is there, how far it is."""

    def __init__(self, shot: Shot, lowest: float, highest: float):
        self.size = shot.size
        self.azimuth = shot.azimuth
        self.pitch = shot.camera.pitch
        self._distance = shot.camera.distance
        self._turn = (math.cos(self.azimuth), math.sin(self.azimuth))
        self._tilt = (math.cos(self.pitch), math.sin(self.pitch))
        self._scale, self._origin = 1.0, (0.0, 0.0)
        top, bottom = self((0, 0, highest)), self((0, 0, lowest))
        height, width = shot.size
        self._scale = shot.zoom * height / (bottom[1] - top[1])
        middle = (top[1] + bottom[1]) / 2 * self._scale
        self._origin = (width * (0.5 + shot.shift[0]), height * (0.5 + shot.shift[1]) - middle)

    def __call__(self, point: Point) -> tuple[float, float, float, float]:
        """(x, y in pixels, pixels per metre, metres behind the middle of the body)."""
        cos, sin = self._turn
        x, y = point[0] * cos - point[1] * sin, -point[0] * sin - point[1] * cos
        low, high = self._tilt
        y, z = y + self._distance * low, point[2] - 0.9 - self._distance * high
        depth = y * low - z * high
        factor = self._scale / depth
        return (
            x * factor + self._origin[0],
            -(y * high + z * low) * factor + self._origin[1],
            factor,
            depth - self._distance,
        )

    def elliptic(self, half_width: float, half_depth: float) -> float:
        """Half-width in the image of an upright elliptic body."""
        cos, sin = self._turn
        return math.hypot(half_width * cos, half_depth * sin)

    def around(self, patch: Patch) -> np.ndarray:
        """float32 [h, w], angle around the body of every pixel: 0 in front, pi / 2 on the left."""
        angle = np.arcsin(np.clip(patch.normal[0], -1, 1)) + math.remainder(self.azimuth, 2 * math.pi)
        return angle - (2 * math.pi) * np.rint(angle * (0.5 / math.pi))


def _wave(position: np.ndarray, period: float, pixel: float) -> np.ndarray:
    """Stripes 0...1 along `position`, with edges one pixel wide; grey where a stripe is finer than a pixel."""
    sharp = min(period / (2 * math.pi * pixel), 6.0)
    return np.clip(0.5 + np.sin(position * (2 * math.pi / period)) * sharp * 0.5, 0, 1)


def pattern_mix(
    garment: Garment, around: np.ndarray, along: np.ndarray, radius: float, pixel: float
) -> np.ndarray | float:
    """How much of the accent colour shows: 0...1, [h, w] or a number.

    Args:
      around: angle around the body, radians; along: metres above the hem.
      radius: of the body, metres; pixel: size of a pixel, metres.
    """
    if garment.pattern == "stripes":
        return _wave(along, 1.6 * garment.period, pixel)
    if garment.pattern == "checks":
        return 0.5 * (_wave(along, 1.2 * garment.period, pixel) + _wave(around * radius, 1.2 * garment.period, pixel))
    if garment.pattern == "print":
        column = np.sin(around) * radius / 0.20 + 0.5
        row = (along - 0.27) / 0.20
        inside = (np.cos(around) > 0.1) & (column >= 0) & (column < 1) & (row >= 0) & (row < 1)
        cells = np.array(
            [[garment.motif >> (3 * r + min(c, 4 - c)) & 1 for c in range(5)] for r in range(5)], np.float32
        )
        c = np.clip((column * 5).astype(np.int32), 0, 4)
        r = np.clip((row * 5).astype(np.int32), 0, 4)
        return inside * (0.25 + 0.75 * cells[r, c])
    return 0.0


class _Painter:
    """Paints the parts of one person on one canvas."""

    def __init__(self, canvas: np.ndarray, person: Person, shot: Shot, pose: _Pose, view: _View, light: Light):
        self.canvas, self.person, self.shot, self.pose, self.view, self.light = canvas, person, shot, pose, view, light
        self._stride = max(1, round(256 / shot.size[0]))
        self._crease = generator(shot.key, "creases").integers(0, 256, 64).tolist()
        self._parts = 0

    def creases(self, patch: Patch, strength: float) -> np.ndarray:
        """float32 [h, w] around 1: relief of the cloth, another for every part."""
        height, width = patch.cover.shape
        top, left = self._crease[self._parts % 64], self._crease[(self._parts + 17) % 64]
        self._parts += 1
        return 1 + strength * folds()[top :: self._stride, left :: self._stride][:height, :width]

    def segment(self, start: Point, end: Point, radii: Sequence[float], **shape: bool) -> Patch | None:
        """A limb between two points of the body with half-widths in metres."""
        x0, y0, scale0, _ = self.view(start)
        x1, y1, scale1, _ = self.view(end)
        step = (scale1 - scale0) / (len(radii) - 1)
        return tube(self.view.size, (x0, y0), (x1, y1), [r * (scale0 + n * step) for n, r in enumerate(radii)], **shape)

    def cloth(
        self,
        patch: Patch | None,
        garment: Garment,
        length: float,
        radius: float,
        *,
        temperature: float | np.ndarray | None = None,
        cover: np.ndarray | None = None,
        pattern: bool = True,
        crease: float = 0.07,
        shadow: float = 0.35,
    ) -> None:
        """Paints a part as cloth; `length` of the part and `radius` of the body in metres place the pattern."""
        if patch is None:
            return
        mix: np.ndarray | float = 0.0
        if pattern and garment.pattern != "plain":
            pixel = 1 / self.view(self.pose.pelvis)[2]
            mix = pattern_mix(garment, self.view.around(patch), patch.along * length, radius, pixel)
        reflectance = [
            a + (b - a) * mix
            for a, b in zip((*garment.rgb, garment.nir), (*garment.accent_rgb, garment.accent_nir), strict=True)
        ]
        relief = self.creases(patch, crease)
        warmth = garment.temperature if temperature is None else temperature
        warmth = self.warm(warmth) + self.shot.clothing + 0.18 * (relief - 1)
        paint(
            self.canvas,
            patch,
            reflectance,
            warmth,
            self.light,
            relief=relief,
            cover=cover,
            shadow=shadow,
            shadow_width=0.012 * self.view.size[0],
        )

    def warm(self, temperature: float | np.ndarray) -> float | np.ndarray:
        """A temperature of the body on this occasion."""
        return SURROUNDINGS + (temperature - SURROUNDINGS) * self.shot.warmth

    def skin(
        self, patch: Patch | None, temperature: float, cover: np.ndarray | None = None, shadow: float = 0.25
    ) -> None:
        """Paints a part as bare skin."""
        person = self.person
        paint(
            self.canvas,
            patch,
            (*person.skin_rgb, person.skin_nir),
            self.warm(temperature),
            self.light,
            cover=cover,
            shadow=shadow,
        )

    def leg(self, side: int) -> None:
        """Thigh, shin and shoe of one leg."""
        person, pose = self.person, self.pose
        lower = person.lower
        hip, knee, ankle = pose.sides[side].hip, pose.sides[side].knee, pose.sides[side].ankle
        bulk = 0.55 + 0.45 * person.girth
        thigh, joint, calf, cuff = 0.088 * bulk, 0.062 * bulk, 0.058 * bulk, 0.042
        warm = SURROUNDINGS + (lower.temperature - SURROUNDINGS) * person.leg_warmth
        bare = person.face_temperature - 0.16 + 0.1 * (person.leg_warmth - 1)
        self.shoe(side)
        if lower.kind == "trousers":
            loose = lower.width
            self.cloth(
                self.segment(knee, ankle, (joint * loose, calf * loose, cuff * 1.2 * loose**2), flat_end=True),
                lower,
                0.4,
                0.06,
                temperature=warm - 0.03,
            )
            self.cloth(
                self.segment(hip, knee, (thigh, joint * loose)), lower, 0.4, 0.07, temperature=warm + 0.03, shadow=0.12
            )
            return
        self.skin(self.segment(knee, ankle, (joint * 0.85, calf * 0.95, cuff * 0.8)), bare - 0.05)
        self.skin(self.segment(hip, knee, (thigh * 0.85, joint * 0.86)), bare, shadow=0.05)
        if lower.kind == "shorts":
            end = _between(hip, knee, 0.78)
            self.cloth(
                self.segment(hip, end, (thigh, thigh * 0.95 * lower.width), flat_end=True),
                lower,
                0.3,
                0.08,
                temperature=warm,
            )

    def shoe(self, side: int) -> None:
        """Shoe with sole, or boot."""
        person, pose = self.person, self.pose
        shoes = person.shoes
        heel, toe, ankle = pose.sides[side].heel, pose.sides[side].toe, pose.sides[side].ankle
        sole = dataclasses.replace(shoes, rgb=(0.6, 0.6, 0.58), nir=0.6) if shoes.kind == "sneakers" else shoes
        low_heel, low_toe = (heel[0], heel[1], heel[2] - 0.015), (toe[0], toe[1], toe[2] - 0.012)
        self.cloth(
            self.segment(low_heel, low_toe, (0.042, 0.04)), sole, 0.2, 0.05, crease=0.0, temperature=0.36, shadow=0.5
        )
        self.cloth(
            self.segment(heel, toe, (0.046, 0.044, 0.036)), shoes, 0.2, 0.05, crease=0.03, temperature=0.40, shadow=0.0
        )
        top = 0.30 if shoes.kind == "boots" else 0.04
        knee = pose.sides[side].knee
        shaft = _between(ankle, knee, top)
        self.cloth(
            self.segment(heel, shaft, (0.045, 0.047)), shoes, 0.2, 0.05, crease=0.04, temperature=0.46, shadow=0.0
        )

    def arm(self, side: int) -> None:
        """Upper arm, forearm and hand."""
        person, pose = self.person, self.pose
        upper = person.upper
        shoulder, elbow, hand = pose.sides[side].shoulder, pose.sides[side].elbow, pose.sides[side].hand
        bulk = (0.6 + 0.4 * person.girth) * (0.92 if person.sex == "woman" else 1.05)
        top, bend, wrist = 0.056 * bulk, 0.044 * bulk, 0.032 * bulk
        bare = person.face_temperature - 0.10
        self.skin(self.segment(hand, _between(elbow, hand, 1.35), (0.034, 0.028)), person.hand_temperature)
        if upper.kind == "t-shirt":
            self.skin(self.segment(elbow, hand, (bend * 0.9, wrist)), 0.5 * (bare + person.hand_temperature))
            self.skin(self.segment(shoulder, elbow, (top * 0.85, bend * 0.92)), bare, shadow=0.1)
            end = _between(shoulder, elbow, 0.62)
            self.cloth(self.segment(shoulder, end, (top, top * 1.02 * upper.width), flat_end=True), upper, 0.2, 0.05)
            return
        thick = {"coat": 1.2, "jacket": 1.12, "hoodie": 1.14}.get(upper.kind, 1.0) * (0.5 + 0.5 * upper.width)
        plain = upper.pattern == "print"
        self.cloth(
            self.segment(elbow, hand, (bend * thick, wrist * 1.25 * thick), flat_end=True),
            upper,
            0.26,
            0.05,
            pattern=not plain,
        )
        self.cloth(
            self.segment(shoulder, elbow, (top * thick, bend * thick)), upper, 0.28, 0.05, pattern=not plain, shadow=0.2
        )

    def trunk(self) -> None:
        """The upper garment from hem to neck, with opening, collar and warm spot; also skirts and tails of coats."""
        person, pose, view = self.person, self.pose, self.view
        upper = person.upper
        thick = {"coat": 1.12, "jacket": 1.07, "hoodie": 1.09}.get(upper.kind, 1.0) * (0.6 + 0.4 * upper.width)
        widths = self._trunk_radii(thick)
        if person.lower.kind == "skirt":
            waist, knee_height = (0.0, 0.0, pose.pelvis[2] + 0.03 * person.height), 0.30 * person.height
            spread = max(0.0, abs(pose.sides[0].knee[1] - pose.sides[1].knee[1]) / 2)
            flare = view.elliptic(0.205 * person.lower.width, 0.13 + 0.9 * spread)
            shape = (widths[3], widths[0] * 1.04, widths[0] + 0.5 * (flare - widths[0]), flare)
            skirt = self.segment(waist, (0.0, 0.0, knee_height), shape, flat_start=True, flat_end=True)
            self.cloth(skirt, person.lower, 0.45, 0.17, temperature=person.lower.temperature * 0.97, crease=0.1)
        if upper.kind == "coat":
            spread = max(0.0, abs(pose.sides[0].knee[1] - pose.sides[1].knee[1]) / 2)
            flare = view.elliptic(0.20 * (0.5 + 0.5 * person.girth), 0.15 + 0.7 * spread)
            start, end = (0.0, 0.0, pose.pelvis[2] + 0.02), (0.0, 0.0, 0.29 * person.height)
            tail = self.segment(
                start, end, (widths[0] * 1.0, (widths[0] + flare) / 2, flare), flat_start=True, flat_end=True
            )
            self.cloth(tail, upper, 0.5, 0.17, crease=0.09, temperature=upper.temperature - 0.03)
            self._front_line(tail, 0.35)
        hem = (0.0, 0.0, pose.pelvis[2] + (_HEMS[upper.kind] - _HIP) * person.height)
        patch = self.segment(hem, pose.neck, widths, flat_start=True)
        if patch is None:
            return
        length = (_NECK_BASE - _HEMS[upper.kind]) * person.height
        warmth = upper.temperature + self._leak(patch)
        self.cloth(patch, upper, length, 0.15, temperature=warmth)
        around = view.around(patch)
        if upper.kind == "jacket":
            gap = 0.20 + 0.25 * patch.along
            opening = patch.cover * smoothstep(gap - np.abs(around), -0.06, 0.06)
            self.cloth(patch, person.inner, length, 0.15, cover=opening)
            edge = patch.cover * np.exp(-(((np.abs(around) - gap) / 0.07) ** 2)) * 0.5
            self._darken(patch, edge)
        elif upper.kind in ("hoodie", "coat"):
            self._front_line(patch, 0.3)
        else:
            collar = patch.cover * smoothstep(patch.along + 0.045 * np.cos(around), 0.965, 0.985)
            if upper.kind == "t-shirt":
                self.skin(patch, person.face_temperature - 0.06, cover=collar)
            else:
                self._darken(patch, 0.35 * collar)
                self._front_line(patch, 0.2)
        if upper.kind == "hoodie":
            x, y, scale, _ = view((0.0, pose.neck[1] - 0.09, pose.neck[2] - 0.01))
            self.cloth(ball(view.size, (x, y), (0.125 * scale, 0.065 * scale)), upper, 0.2, 0.1, pattern=False)
        self._straps(patch, around)

    def _trunk_radii(self, thick: float) -> list[float]:
        """Half-widths in metres of the trunk as seen from here, at equally spaced places from hem to neck."""
        person = self.person
        widths = []
        for place, wide, deep, belly in zip(
            _TRUNK_PLACES, _TRUNK_WIDTH[person.sex], _TRUNK_DEPTH[person.sex], _BELLY, strict=True
        ):
            stout = belly * (person.girth - 1)
            shoulders = person.shoulders if 0.7 < place < 0.95 else 1.0
            widths.append(
                self.view.elliptic(wide * (1 + 0.75 * stout) * thick * shoulders, deep * (1 + 1.6 * stout) * thick)
            )
        return np.interp(np.linspace(0, 1, 25), _TRUNK_PLACES, widths).tolist()

    def _leak(self, patch: Patch) -> np.ndarray:
        """Warmth of the garment beyond its mean: the body's own pattern, and where this person loses most."""
        around, along = self.view.around(patch), patch.along
        front = 0.5 + 0.5 * np.cos(around)
        heat = np.zeros_like(patch.cover)
        for number, level in enumerate(_HEAT_LEVELS):
            before, behind = self.person.heat[number], self.person.heat[number + len(_HEAT_LEVELS)]
            heat += np.exp(-(((along - level) / 0.15) ** 2)) * (behind + (before - behind) * front)
        spot = self.person.warm_spot
        if spot == "none":
            return heat
        place = {"chest": (0.72, 0.0), "belly": (0.25, 0.0), "shoulders": (0.9, None), "back": (0.6, math.pi)}[spot]
        bump = np.exp(-(((along - place[0]) / 0.16) ** 2))
        if place[1] is not None:
            turn = np.cos(around - place[1])
            bump = bump * np.clip(turn, 0, 1)
        return heat + (0.22 * (self.person.upper.temperature - SURROUNDINGS) + 0.06) * bump

    def _darken(self, patch: Patch | None, share: np.ndarray) -> None:
        if patch is not None:
            self.canvas[:TIR, patch.window[0], patch.window[1]] *= 1 - share

    def _front_line(self, patch: Patch | None, strength: float) -> None:
        """Zip or row of buttons down the front."""
        if patch is not None:
            line = np.exp(-((self.view.around(patch) / 0.06) ** 2)) * (patch.normal[2] > 0.15)
            self._darken(patch, strength * patch.cover * line)

    def _straps(self, patch: Patch, around: np.ndarray) -> None:
        """Straps of a backpack or shoulder bag over the trunk."""
        person, bag = self.person, self.person.bag_garment
        if person.bag == "backpack":
            on_front = np.cos(around) > 0
            wide = np.interp(patch.along, _TRUNK_PLACES, _TRUNK_WIDTH[person.sex]).astype(np.float32)
            aside = np.abs(np.sin(around)) * wide
            band = np.exp(-(((aside - 0.098) / 0.026) ** 4)) * on_front * smoothstep(patch.along, 0.35, 0.45)
        elif person.bag == "shoulder bag":
            diagonal = (patch.along - 0.42) - 0.42 * np.sin(around)
            band = np.exp(-((diagonal / 0.045) ** 4))
        else:
            return
        self.cloth(
            patch, bag, 0.4, 0.15, cover=patch.cover * np.clip(band, 0, 1), crease=0.0, temperature=SURROUNDINGS + 0.1
        )

    def bag(self) -> None:
        """The bag itself; it hardly takes the body's warmth."""
        person, pose, view = self.person, self.pose, self.view
        bag = person.bag_garment
        cold = SURROUNDINGS - 0.03 + 0.05 * _warmth(bag)
        if person.bag == "backpack":
            back = -(0.118 * (1 + 1.2 * max(0.0, person.girth - 1)) + 0.085)
            top = (0.0, pose.neck[1] + back, pose.neck[2] - 0.07)
            bottom = (0.0, back, pose.pelvis[2] + 0.08)
            half = view.elliptic(0.135, 0.085) * bag.width
            patch = self.segment(top, bottom, (half * 0.55, half * 0.95, half, half, half, half * 0.9), flat_end=False)
            self.cloth(patch, bag, 0.4, 0.13, temperature=cold, crease=0.05)
            if patch is not None:
                pocket = np.exp(-(((patch.along - 0.55) / 0.03) ** 2)) * patch.cover * 0.4
                self._darken(patch, pocket)
        elif person.bag == "shoulder bag":
            top = (-0.20 * (0.7 + 0.3 * person.girth), -0.02, pose.pelvis[2] + 0.03)
            bottom = (top[0] * 1.08, -0.02, top[2] - 0.20)
            half = view.elliptic(0.06, 0.15) * bag.width
            self.cloth(
                self.segment(top, bottom, (half * 0.92, half), flat_start=True),
                bag,
                0.2,
                0.1,
                temperature=cold,
                crease=0.04,
            )
        elif person.bag == "handbag":
            hand = pose.sides[0].hand
            top = (hand[0] + 0.01, hand[1] + 0.01, hand[2] - 0.13)
            bottom = (top[0], top[1], top[2] - 0.17)
            half = view.elliptic(0.055, 0.145) * bag.width
            self.cloth(self.segment(hand, top, (0.012, 0.012)), bag, 0.1, 0.1, temperature=cold, crease=0.0)
            self.cloth(
                self.segment(top, bottom, (half * 0.85, half), flat_start=True),
                bag,
                0.2,
                0.1,
                temperature=cold,
                crease=0.04,
            )

    def neck(self) -> None:
        """The neck, warm and partly shaded by the head."""
        pose = self.pose
        top = (0.0, pose.head[1] - 0.015, pose.head[2] - 0.04)
        base = (0.0, pose.neck[1], pose.neck[2] - 0.03)
        self.skin(self.segment(base, top, (0.054, 0.05)), self.person.face_temperature - 0.02)

    def back_hair(self) -> None:
        """Hair that hangs below the head, or is tied behind it."""
        person, pose = self.person, self.pose
        colour = (*person.hair_rgb, person.hair_nir)
        head = pose.head
        if person.hair == "long":
            start, end = (0.0, head[1] - 0.03, head[2] - 0.01), (0.0, head[1] - 0.085, head[2] - 0.31)
            half = self.view.elliptic(0.092, 0.05)
            patch = self.segment(start, end, (half, half * 1.05, half * 0.75))
        elif person.hair == "bob":
            start, end = (0.0, head[1] - 0.02, head[2]), (0.0, head[1] - 0.03, head[2] - 0.12)
            half = self.view.elliptic(0.095, 0.075)
            patch = self.segment(start, end, (half, half * 1.05), flat_end=True)
        elif person.hair == "bun":
            x, y, scale, _ = self.view((0.0, head[1] - 0.105, head[2] + 0.06))
            patch = ball(self.view.size, (x, y), (0.045 * scale, 0.042 * scale))
        else:
            return
        if patch is not None:
            paint(
                self.canvas,
                patch,
                colour,
                self.warm(person.hair_temperature - 0.1),
                self.light,
                relief=self.creases(patch, 0.12),
                shadow=0.2,
            )

    def head(self) -> None:
        """Face, hair, hat and glasses, each where it lies on the head, whatever side is seen."""
        person, view = self.person, self.view
        x, y, scale, _ = view(self.pose.head)
        half = view.elliptic(_HEAD[0], _HEAD[1]) * scale
        tall = _HEAD[2] * scale
        light, canvas = self.light, self.canvas
        hair_colour = (*person.hair_rgb, person.hair_nir)
        if person.hair != "bald":
            volume = 1.05 if person.hair == "short" else 1.10
            crown = ball(view.size, (x, y - 0.07 * tall), (half * volume, tall * (volume - 0.05)))
            if crown is not None:
                upper_half = crown.cover * smoothstep(0.62 - crown.along, -0.06, 0.06)
                warmth, strands = self.warm(person.hair_temperature), self.creases(crown, 0.12)
                paint(canvas, crown, hair_colour, warmth, light, relief=strands, cover=upper_half)
        turn, side = math.cos(view.azimuth), math.sin(view.azimuth)
        if turn > -0.3:  # nose and chin stand out of the oval
            for forward, upward, radius in ((0.090, -0.022, 0.017), (0.066, -0.082, 0.034)):
                tip = (0.0, self.pose.head[1] + forward, self.pose.head[2] + upward)
                spot_x, spot_y, spot_scale, _ = view(tip)
                self.skin(
                    ball(view.size, (spot_x, spot_y), (radius * spot_scale, radius * spot_scale)),
                    person.face_temperature - 0.08,
                )
        patch = ball(view.size, (x, y), (half, tall))
        if patch is None:
            return
        cos, sin = math.cos(view.pitch), math.sin(view.pitch)
        up = -patch.normal[1] * cos + patch.normal[2] * sin
        towards = patch.normal[2] * cos + patch.normal[1] * sin
        left = patch.normal[0] * turn + towards * side
        front = -patch.normal[0] * side + towards * turn
        face = self._face(left, front, up)
        nose = np.exp(-(left**2 + (up + 0.12) ** 2) / 0.03) * (front > 0)
        eyes = np.exp(-((np.abs(left) - 0.36) ** 2 + (up - 0.12) ** 2) / 0.05) * (front > 0)
        temperature = person.face_temperature - 0.12 * nose + 0.03 * eyes
        reflectance = [channel * face for channel in (*person.skin_rgb, person.skin_nir)]
        relief: float | np.ndarray = 1.0
        if person.hair != "bald":
            low = -0.42 if person.hair == "short" else -1.1
            line = low + (0.56 - low) * smoothstep(front, -0.05 if person.hair == "short" else 0.15, 0.62)
            hair = smoothstep(up - line, -0.07, 0.07)
            # Mixed before painting: painted one over the other, a rim of skin would show around dark hair.
            reflectance = [skin + hair * (strand - skin) for skin, strand in zip(reflectance, hair_colour, strict=True)]
            temperature = temperature + hair * (person.hair_temperature - temperature)
            relief = 1 + hair * (self.creases(patch, 0.10) - 1)
        paint(canvas, patch, reflectance, self.warm(temperature), light, relief=relief, shadow=0.25)
        if person.glasses:
            lens = np.exp(-(((np.abs(left) - 0.40) / 0.24) ** 4) - ((up - 0.10) / 0.16) ** 4) * (front > 0.2)
            arm = np.exp(-(((up - 0.14) / 0.06) ** 2)) * (front > -0.1) * (np.abs(left) > 0.6)
            glasses = patch.cover * np.clip(0.85 * lens + 0.7 * arm, 0, 1)
            paint(canvas, patch, (0.04, 0.04, 0.045, 0.10), self.warm(0.42), light, cover=glasses)
        self._hat(patch, up, front, (x, y, scale, half, tall))

    def _face(self, left: np.ndarray, front: np.ndarray, up: np.ndarray) -> np.ndarray:
        """float32 [h, w], factor on the skin: brows, eyes and mouth."""
        seen = front > 0.1
        eye = np.exp(-(((np.abs(left) - 0.36) / 0.16) ** 2) - ((up - 0.08) / 0.07) ** 2)
        brow = np.exp(-(((np.abs(left) - 0.37) / 0.2) ** 2) - ((up - 0.24) / 0.05) ** 2)
        mouth = np.exp(-((left / 0.26) ** 2) - ((up + 0.48) / 0.06) ** 2)
        return 1 - seen * np.clip(0.65 * eye + 0.4 * brow + 0.4 * mouth, 0, 0.8)

    def _hat(
        self, patch: Patch, up: np.ndarray, front: np.ndarray, head: tuple[float, float, float, float, float]
    ) -> None:
        person, view = self.person, self.view
        hat = person.hat_garment
        if person.hat == "none":
            return
        x, y, scale, half, tall = head
        rim = 0.30 if person.hat == "cap" else 0.22
        dome = ball(view.size, (x, y - (0.24 if person.hat == "cap" else 0.30) * tall), (half * 1.07, tall * 0.86))
        if dome is not None:
            # The dome ends at the rim, a level ring around the head that a camera above sees as an ellipse.
            drop = 0.10 * np.cos(view.azimuth) * view.pitch
            edge = y - rim * tall + (0.25 * view.pitch + drop) * tall * np.sqrt(np.clip(1 - dome.across**2, 0, 1))
            rows = np.arange(dome.window[0].start, dome.window[0].stop, dtype=np.float32)[:, None] + 0.5
            cover = dome.cover * np.clip(edge - rows + 0.5, 0, 1)
            self.cloth(dome, hat, 0.15, 0.1, cover=cover, temperature=hat.temperature - 0.06, crease=0.05)
        if person.hat == "cap":
            x1, y1, _, _ = view((0.0, self.pose.head[1] + 0.15, self.pose.head[2] + 0.035))
            x0, y0, _, _ = view((0.0, self.pose.head[1] + 0.07, self.pose.head[2] + 0.045))
            if math.cos(view.azimuth) > -0.35:
                thick = max(0.018, 0.07 * abs(math.cos(view.azimuth)) * view.pitch + 0.014) * scale
                if abs(x1 - x0) < half:  # seen from the front
                    brim = ball(view.size, ((x0 + x1) / 2, (y0 + y1) / 2), (max(half * 0.8, abs(x1 - x0)), thick * 1.3))
                else:
                    brim = tube(view.size, (x0, y0), (x1, y1), (thick, thick * 0.8))
                self.cloth(brim, hat, 0.1, 0.1, temperature=0.4, crease=0.0)


def _warmth(garment: Garment) -> float:
    """How much warmth comes through a fabric, above the surroundings."""
    return garment.temperature - SURROUNDINGS


def _paint_person(canvas: np.ndarray, person: Person, shot: Shot, light: Light) -> None:
    """Paints one person over the canvas, in place."""
    pose = _pose(person, shot)
    view = _View(shot, 0.0, pose.head[2] + _HEAD[2])
    painter = _Painter(canvas, person, shot, pose, view, light)
    _ground_shadow(canvas, view, light, shot)

    def depth(*points: Point) -> float:
        return float(np.mean([view(point)[3] for point in points]))

    middle = depth(pose.pelvis, pose.neck)
    far, near = sorted(
        (0, 1), key=lambda side: -depth(pose.sides[side].hip, pose.sides[side].knee, pose.sides[side].ankle)
    )
    steps: list[Callable[[], None]] = []
    arms = sorted((0, 1), key=lambda side: -depth(pose.sides[side].shoulder, pose.sides[side].elbow))
    hidden_arms = [side for side in arms if depth(pose.sides[side].shoulder) - depth(pose.neck) > 0.05]
    open_arms = [side for side in arms if side not in hidden_arms]
    faces_camera = math.cos(view.azimuth) > 0
    bag_place: Point = {
        "backpack": (0.0, -0.2, 1.1),
        "shoulder bag": (-0.22, 0.0, 0.8),
        "handbag": (0.25, 0.0, 0.6),
    }.get(person.bag, (0.0, 0.0, 0.0))
    bag_behind = depth(bag_place) > middle + 0.02
    if bag_behind:
        steps.append(painter.bag)
    steps += [functools.partial(painter.arm, side) for side in hidden_arms]
    steps += [functools.partial(painter.leg, side) for side in (far, near)]
    if faces_camera:
        steps.append(painter.back_hair)
    steps += [painter.neck, painter.trunk]
    if not bag_behind and person.bag == "backpack":
        steps.append(painter.bag)
    steps += [painter.head] if faces_camera else [painter.head, painter.back_hair]
    steps += [functools.partial(painter.arm, side) for side in open_arms]
    if not bag_behind and person.bag in ("shoulder bag", "handbag"):
        steps.append(painter.bag)
    for step in steps:
        step()


def _ground_shadow(canvas: np.ndarray, view: _View, light: Light, shot: Shot) -> None:
    """Darkens the floor around the feet, where sky and sun do not reach."""
    x, y, scale, _ = view((0.0, 0.05, 0.0))
    patch = ball(view.size, (x - 0.25 * light.direction[0] * scale, y), (0.42 * scale, max(3.0, 0.10 * scale)))
    if patch is not None:
        share = 0.5 * np.clip(1 - patch.across**2 - (2 * patch.along - 1) ** 2, 0, 1)
        canvas[:NIR, patch.window[0], patch.window[1]] *= 1 - share
        canvas[NIR, patch.window[0], patch.window[1]] *= 1 - 0.5 * share


def draw_person(identity: Person, shot: Shot, modalities: Sequence[str] = sensor.MODALITIES) -> dict[str, np.ndarray]:
    """One person at one moment: modality -> uint8 [H, W, 3], of exactly the same scene in all `modalities`."""
    canvas = backdrop(shot)
    light = sensor.lighting(shot)
    if shot.occluder == "passer-by":
        stranger = person_identity(shot.camera.seed, -2 - shot.key % 1000)
        aside = dataclasses.replace(
            shot,
            azimuth=shot.azimuth + 2.2,
            phase=shot.phase + 1.7,
            shift=(math.copysign(0.36, shot.occluder_place) + 0.1 * shot.occluder_place, shot.shift[1] + 0.03),
            zoom=0.95 * shot.zoom,
            key=shot.key + 17,
        )
        _paint_person(canvas, stranger, aside, light)
    _paint_person(canvas, identity, shot, light)
    occlude(canvas, shot, light)
    return sensor.expose(canvas, shot, modalities)


def draw_nobody(shot: Shot) -> dict[str, np.ndarray]:
    """The same three images without a person: a false detection."""
    canvas = backdrop(shot)
    light = sensor.lighting(shot)
    occlude(canvas, shot, light)
    return sensor.expose(canvas, shot)
