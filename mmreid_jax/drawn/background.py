"""What stands behind the subject: a wide picture of each camera's place in all kinds of light, cut out per shot."""

from __future__ import annotations

import functools
import math

import numpy as np

from mmreid_jax.drawn.attributes import SURROUNDINGS, Camera, Kind, Shot
from mmreid_jax.drawn.raster import NIR, TIR
from mmreid_jax.drawn.streams import cloud, generator

# Nominal geometry of the two kinds of image: pixels per metre and the row where the subject touches the ground, both as
# a share of the image height.
_PIXELS_PER_METRE = {"person": 0.51, "vehicle": 0.375}
_GROUND_ROW = {"person": 0.95, "vehicle": 0.86}
_WIDTHS = 4


def _colour(red: float, green: float, blue: float, nir: float, temperature: float) -> np.ndarray:
    return np.array([red, green, blue, nir, temperature], np.float32)[:, None, None]


_GROUNDS = {
    "asphalt": _colour(0.13, 0.13, 0.14, 0.16, 0.36),
    "lanes": _colour(0.15, 0.15, 0.155, 0.18, 0.37),
    "tiles": _colour(0.36, 0.33, 0.30, 0.40, 0.32),
    "slabs": _colour(0.29, 0.29, 0.28, 0.34, 0.34),
    "concrete": _colour(0.36, 0.355, 0.34, 0.38, 0.33),
    "grass": _colour(0.085, 0.17, 0.05, 0.55, 0.26),
}
_BACKS = {
    "brick wall": _colour(0.30, 0.16, 0.11, 0.36, 0.36),
    "shop front": _colour(0.34, 0.33, 0.31, 0.40, 0.34),
    "hedge": _colour(0.055, 0.11, 0.035, 0.50, 0.25),
    "fence": _colour(0.42, 0.47, 0.52, 0.34, 0.22),
    "hall": _colour(0.46, 0.45, 0.41, 0.48, 0.33),
}


def _lines(
    position: np.ndarray, period: float, thickness: np.ndarray | float, softness: np.ndarray | float
) -> np.ndarray:
    """0...1, one on lines every `period`, `thickness` wide, with edges `softness` wide so that distant lines fade."""
    distance = np.abs((position / period + 0.5) % 1.0 - 0.5) * period
    return np.clip((thickness / 2 - distance) / softness + 0.5, 0, 1)


def _ground(name: str, x: np.ndarray, depth: np.ndarray, pixel: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """float32 [5, rows, columns] of the floor; `x` [rows, columns], `depth` and `pixel` size [rows, 1] in metres."""
    shape = x.shape
    picture = np.broadcast_to(_GROUNDS[name], (5, *shape)).copy()
    grain = random.standard_normal(shape).astype(np.float32)
    mottle = cloud(random, shape, cells=3, octaves=4)
    relief = 1 + 0.22 * mottle + 0.05 * grain
    if name in ("tiles", "slabs"):
        side = 0.45 if name == "tiles" else 0.9
        row = np.floor(depth / side)
        offset = 0.0 if name == "tiles" else (row % 2) * side / 2
        joint = np.maximum(_lines(x + offset, side, 0.03, pixel), _lines(depth, side, 0.05, pixel * 4))
        number = np.floor((x + offset) / side) * 57 + row * 131
        tone = np.sin(number * 12.9898) * 0.5
        relief = relief * (1 + 0.22 * tone) * (1 - 0.45 * joint)
    elif name == "lanes":
        paint = _lines(x + 1.0, 3.4, 0.14, pixel) * (np.sin(depth * 1.3) > -0.2)
        picture[:4] += (0.55 - picture[:4]) * paint * 0.8
    elif name == "grass":
        blades = cloud(random, shape, cells=40, octaves=2)
        relief = relief * (1 + 0.45 * blades)
    elif name == "concrete":
        relief = relief * (1 - 0.3 * _lines(x, 2.4, 0.03, pixel) - 0.3 * _lines(depth, 2.4, 0.05, pixel * 4))
    elif name == "asphalt":
        kerb = np.clip((np.abs(depth - depth.min() - 1.6) < 0.12).astype(np.float32), 0, 1)
        picture[:4] += (0.4 - picture[:4]) * kerb * 0.5
    picture[:4] *= relief
    picture[TIR] += 0.035 * mottle
    return picture


def _wall(name: str, x: np.ndarray, height: np.ndarray, pixel: float, random: np.random.Generator) -> np.ndarray:
    """float32 [5, rows, columns] of what stands behind; `x` [1, columns], `height` above ground [rows, 1], metres."""
    shape = (height.shape[0], x.shape[1])
    picture = np.broadcast_to(_BACKS[name], (5, *shape)).copy()
    mottle = cloud(random, shape, cells=2, octaves=4)
    relief = 1 + 0.18 * mottle
    if name == "brick wall":
        course = np.floor(height / 0.15)
        shifted = x + (course % 2) * 0.2
        joint = np.maximum(_lines(shifted, 0.4, 0.025, pixel), _lines(height, 0.15, 0.025, pixel))
        tone = np.sin(course * 78.233 + np.floor(shifted / 0.4) * 37.7)
        relief = relief * (1 + 0.15 * tone)
        picture[:4] += (0.42 - picture[:4]) * joint * 0.6
        window = (np.abs(x % 3.6 - 1.8) < 0.65) & (np.abs(height - 1.9) < 0.75)
        frame = (np.abs(x % 3.6 - 1.8) < 0.75) & (np.abs(height - 1.9) < 0.85) & ~window
        picture = np.where(window, _colour(0.05, 0.065, 0.08, 0.07, 0.28), picture)
        picture = np.where(frame, _colour(0.6, 0.6, 0.58, 0.55, 0.42), picture)
    elif name == "shop front":
        pane = (x % 2.8 > 0.25) & (height > 0.5) & (height < 2.5)
        number = np.floor(x / 2.8)
        inside = cloud(random, shape, cells=4, octaves=3)
        glow = 0.10 + 0.10 * np.sin(number * 9.1) + 0.12 * inside
        glass = np.stack([glow * 1.15, glow, glow * 0.85, glow * 0.7, 0.40 + 0.05 * inside])
        picture = np.where(pane, np.maximum(glass, 0.02), picture)
        sign = (height > 2.6) & (height < 3.1)
        tint = np.stack(
            [0.25 + 0.22 * np.sin(number * 2.3), 0.22 + 0.16 * np.sin(number * 4.1), 0.25 + 0.2 * np.sin(number * 1.3)]
        )
        picture[:3] = np.where(sign, np.maximum(tint, 0.03), picture[:3])
    elif name == "hedge":
        leaves = cloud(random, shape, cells=24, octaves=3)
        clumps = cloud(random, shape, cells=5, octaves=2)
        relief = np.maximum(0.15, 1 + 0.9 * leaves + 0.6 * clumps)
        top = 2.3 + 0.5 * cloud(random, shape, cells=2, octaves=1)[:1]
        sky = np.clip((height - top - 0.4 * leaves) / 0.1, 0, 1)
        picture[:4] *= relief
        picture += (_colour(0.62, 0.68, 0.78, 0.30, 0.04) - picture) * sky
        picture[TIR] += 0.03 * clumps
        return picture
    elif name == "fence":
        picture[:4] *= 1 + 0.12 * mottle
        field = height < 0.9 + 0.35 * cloud(random, shape, cells=4, octaves=3)[:1]
        far = _colour(0.12, 0.16, 0.08, 0.42, 0.27) * (1 + 0.5 * cloud(random, shape, cells=12))
        picture = np.where(field, far, picture)
        rails = np.maximum(_lines(x, 0.14, 0.025, pixel), _lines(height - 0.1, 1.0, 0.05, pixel)) * (height < 1.25)
        picture += (_colour(0.10, 0.11, 0.11, 0.2, 0.33) - picture) * rails
        return picture
    else:
        door = (np.abs(x % 3.2 - 1.6) < 0.5) & (height < 2.1)
        number = np.floor(x / 3.2)
        wood = 0.5 + 0.4 * np.sin(number * 5.7)
        panel = np.stack([0.25 + 0.15 * wood, 0.16 + 0.12 * wood, 0.10 + 0.1 * wood, 0.3 + 0.2 * wood, 0.35 + 0 * wood])
        picture = np.where(door, np.broadcast_to(panel, picture.shape), picture)
        skirting = height < 0.12
        picture[:4] = np.where(skirting, 0.12, picture[:4])
        lamps = np.clip(1 - np.abs(height - 2.9) / 0.15, 0, 1) * (x % 2.0 < 1.2)
        picture[:3] += lamps
    picture[:4] *= relief
    picture[TIR] += 0.04 * mottle
    return picture


def _furnish(picture: np.ndarray, base: float, per_metre: float, random: np.random.Generator) -> None:
    """Stands posts, bins and planters on the floor in front of what stands behind, in place."""
    _, rows, columns = picture.shape
    for _ in range(7):
        width, height = random.uniform(0.08, 0.7) * per_metre, random.uniform(0.5, 2.4) * per_metre
        if width > 0.3 * per_metre:
            height = min(height, 1.1 * per_metre)
        foot = base + random.uniform(0.0, 0.22) * rows
        left = random.uniform(0, columns)
        top, bottom = int(max(0, foot - height)), int(min(rows, foot))
        first, last = int(left), int(min(columns, left + max(2.0, width)))
        if top >= bottom or first >= last:
            continue
        tone = random.choice((0.06, 0.15, 0.4))
        colour = np.clip(tone * np.exp(random.normal(0, 0.12, 3)), 0.02, 0.7)
        body = np.array([*colour, random.uniform(0.1, 0.7), random.uniform(0.2, 0.44)], np.float32)
        bend = 1 - 0.55 * np.linspace(-0.9, 0.5, last - first, dtype=np.float32) ** 2
        patch = np.repeat(body[:, None], last - first, axis=1)
        patch[:TIR] *= bend
        wear = 1 + 0.25 * cloud(random, (bottom - top, last - first), cells=3)
        picture[:, top:bottom, first:last] = patch[:, None, :] * np.stack([wear] * 4 + [1 + 0.1 * (wear - 1)])
        shade = slice(bottom, min(rows, bottom + max(1, int(0.1 * per_metre))))
        picture[:TIR, shade, first:last] *= 0.6


@functools.lru_cache(maxsize=32)
def _panorama(
    seed: int,
    kind: Kind,
    index: int,
    height: int,
    width: int,
    distance: float,
    pitch: float,
    gap: float,
    ground: str,
    behind: str,
) -> np.ndarray:
    random = generator(seed, f"{kind} background", index)
    rows, columns = math.ceil(1.12 * height), _WIDTHS * max(height, width) + width
    per_metre = _PIXELS_PER_METRE[kind] * height
    focal = per_metre * distance
    contact = (_GROUND_ROW[kind] + 0.06) * height
    horizon = 0.56 * height - focal * math.tan(pitch)
    camera_height = (contact - horizon) / per_metre
    base = horizon + focal * camera_height / (distance + gap)
    row = np.arange(rows, dtype=np.float32)[:, None] + 0.5
    x = (np.arange(columns, dtype=np.float32)[None, :] + 0.5) - columns / 2
    picture = np.empty((5, rows, columns), np.float32)
    edge = int(np.clip(round(base), 0, rows))
    if edge < rows:
        below = np.maximum(row[edge:] - horizon, 1.0)
        depth = focal * camera_height / below
        metre = focal / depth
        picture[:, edge:] = _ground(ground, x / metre, depth, 1 / metre, random)
    if edge > 0:
        far = focal / (distance + gap)
        picture[:, :edge] = _wall(behind, x / far + 500, (base - row[:edge]) / far, 1 / far, random)
        contact_shadow = np.clip(1 - np.abs(row - base) / (0.05 * height), 0, 1)
        picture[:TIR] *= 1 - 0.45 * contact_shadow
    _furnish(picture, base if edge > 0 else 0.3 * rows, 0.8 * per_metre, random)
    # Light from one side, as everywhere outdoors; the lamp beside the lens hardly reaches the distance.
    picture[:3] *= 0.82 + 0.25 * cloud(random, (rows, columns), cells=1, octaves=1)
    picture[NIR] *= 0.8 * np.clip(1.0 - 0.5 * (1 - row / rows), 0, 1)
    picture[TIR] = np.clip(picture[TIR], 0, SURROUNDINGS + 0.16)
    return picture


def panorama(camera: Camera, size: tuple[int, int]) -> np.ndarray:
    """float32 [5, 1.12 H, several W], everything this camera can have behind a subject; kept for the next shot."""
    place = (camera.distance, camera.pitch, camera.gap, camera.ground, camera.behind)
    return _panorama(camera.seed, camera.kind, camera.index, *size, *place)


def backdrop(shot: Shot) -> np.ndarray:
    """float32 [5, H, W], the part of the camera's surroundings behind this shot, as a fresh array."""
    height, width = shot.size
    wide = panorama(shot.camera, shot.size)
    left = round(shot.place * (wide.shape[2] - width))
    top = round(np.clip(0.5 + 6 * shot.shift[1], 0, 1) * (wide.shape[1] - height))
    cut = wide[:, top : top + height, left : left + width]
    return np.array(cut[:, :, ::-1] if shot.mirrored else cut)
