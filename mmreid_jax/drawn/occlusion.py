"""Things between camera and subject: posts, hedges, boxes."""

from __future__ import annotations

import numpy as np

from mmreid_jax.drawn.attributes import Shot
from mmreid_jax.drawn.raster import Light, paint, polygon, tube
from mmreid_jax.drawn.streams import cloud, generator


def occlude(canvas: np.ndarray, shot: Shot, light: Light) -> None:
    """Paints the shot's occluder, if it has one, over the canvas [5, H, W], in place."""
    random = generator(shot.key, "occluder")
    height, width = shot.size
    centre = width * (0.5 + 0.5 * shot.occluder_place)
    if shot.occluder == "pole":
        radius = width * random.uniform(0.035, 0.07)
        grey = random.choice((0.06, 0.2, 0.45))
        colour = (grey, grey * 1.02, grey * 0.98, random.uniform(0.15, 0.6))
        post = tube(shot.size, (centre, -20), (centre, height + 20), (radius, radius * 1.1))
        paint(canvas, post, colour, random.uniform(0.25, 0.4), light)
    elif shot.occluder == "hedge":
        rows = round(height * random.uniform(0.18, 0.36))
        leaves = cloud(random, (rows, width), cells=8, octaves=3)
        above = np.arange(rows, dtype=np.float32)[:, None] - 0.12 * rows - 0.25 * rows * leaves[:1] * 0.8
        cover = np.clip(above, 0, 1)
        tone = np.maximum(0.2, 1 + 0.9 * leaves)
        body = np.stack([0.05 * tone, 0.10 * tone, 0.03 * tone, 0.55 * tone * 0.7, 0.25 + 0.02 * leaves])
        canvas[:, height - rows :] += cover * (body - canvas[:, height - rows :])
    elif shot.occluder == "box":
        top = height * random.uniform(0.62, 0.8)
        half = width * random.uniform(0.22, 0.34)
        tilt = random.uniform(-0.02, 0.02) * height
        corners = np.array(
            [
                [centre - half, top - tilt],
                [centre + half, top + tilt],
                [centre + half, height + 9],
                [centre - half, height + 9],
            ]
        )
        inside = polygon(shot.size, corners)
        if inside is not None:
            window, cover = inside
            tone = random.choice((0.05, 0.14, 0.3)) * np.exp(random.normal(0, 0.3, 3))
            shade = np.linspace(1.1, 0.6, cover.shape[0], dtype=np.float32)[:, None]
            reflectance = np.array([*tone, random.uniform(0.1, 0.6)], np.float32)[:, None, None] * shade
            warmth = np.full((1, *shade.shape), random.uniform(0.24, 0.38), np.float32)
            body = np.concatenate([reflectance, warmth])
            canvas[:, window[0], window[1]] += cover * (body - canvas[:, window[0], window[1]])
