"""From light and warmth to the pixels that a visible, a near-infrared and a thermal camera deliver."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmreid_jax.drawn.attributes import Shot
from mmreid_jax.drawn.raster import NIR, TIR, Light
from mmreid_jax.drawn.streams import generator, white_noise

# Sensors are described for images of the native size; a smaller image shows the same detail on fewer pixels.
_NATIVE_ROWS = {"person": 256, "vehicle": 128}

# light -> (ambient, direct, level, colour of the light, share of the lamp in the near infrared)
_LIGHTS = {
    "day": (0.62, 0.62, 1.0, (1.0, 0.98, 0.95), 0.55),
    "dusk": (0.80, 0.22, 0.45, (1.04, 0.97, 0.92), 0.75),
    "night": (0.45, 0.55, 0.13, (1.10, 0.95, 0.78), 0.95),
}


def lighting(shot: Shot) -> Light:
    """How the light of this shot falls on surfaces."""
    ambient, direct, _, _, lamp = _LIGHTS[shot.light]
    right, down, towards = shot.camera.sun
    if shot.light == "night":  # street lamps hang above, and there is no sun
        right, down, towards = 0.45 * right, -0.85, 0.4
    if shot.mirrored:
        right = -right
    return Light((right, down, towards), ambient, direct, lamp)


def level(shot: Shot) -> float:
    """How much light there is, as a share of daylight."""
    return _LIGHTS[shot.light][2]


def _bands(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns [1, W] and rows [H, 1] from -1 to 1."""
    return (
        np.linspace(-1, 1, width, dtype=np.float32)[None, :],
        np.linspace(-1, 1, height, dtype=np.float32)[:, None],
    )


def _digitise(image: np.ndarray, blur: float, noise: np.ndarray | float, key: int) -> np.ndarray:
    """uint8 like `image` (0...1, [H, W] or [H, W, 3]): seen by noisy elements that are `blur` pixels wide."""
    from PIL import Image

    height, width = image.shape[:2]
    small = (max(8, round(width / blur)), max(8, round(height / blur)))
    picture = Image.fromarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8))
    coarse = np.asarray(picture.resize(small, Image.Resampling.BOX) if blur > 1 else picture, np.float32)
    if coarse.ndim == 3:
        grain = np.stack([white_noise(key + 7919 * c, *coarse.shape[:2]) for c in range(3)], axis=-1)
    else:
        grain = white_noise(key, *coarse.shape)
    noisy = Image.fromarray(np.clip(coarse + (255 * noise) * grain + 0.5, 0, 255).astype(np.uint8))
    return np.asarray(noisy.resize((width, height), Image.Resampling.BICUBIC) if blur > 1 else noisy)


def _glare(shot: Shot) -> np.ndarray:
    """float32 [H, W], light of a head or street lamp that shines into the lens, with its halo."""
    random = generator(shot.key, "glare")
    x, y = _bands(*shot.size)
    aspect = shot.size[1] / shot.size[0]
    total = np.zeros(shot.size, np.float32)
    centre_x, centre_y = random.uniform(-0.9, 0.9), random.uniform(-0.5, 0.7)
    for offset in (-0.22, 0.22) if random.random() < 0.5 else (0.0,):
        squared = ((x - centre_x - offset) * aspect) ** 2 + (y - centre_y) ** 2
        total += 0.9 / (1 + squared * 160) + 0.45 / (1 + squared * 10)
        total += 0.3 * np.exp(-np.abs(y - centre_y) * 40) / (1 + np.abs(x - centre_x - offset) * 6)
    return shot.glare * total


def visible(canvas: np.ndarray, shot: Shot) -> np.ndarray:
    """uint8 [H, W, 3], the colour image: reflected light, dark and noisy at night, tinted by light and sensor."""
    sensor = shot.camera
    tint = _LIGHTS[shot.light][3]
    colour = canvas[:3] * (level(shot) * shot.brightness * sensor.gain)
    colour *= (np.array(tint, np.float32) * np.array(sensor.cast, np.float32))[:, None, None]
    x, y = _bands(*shot.size)
    if shot.light == "night":
        side = 0.7 if sensor.sun[0] > 0 else -0.7
        colour *= np.exp(-0.9 * ((x - side) ** 2 + 0.5 * (y + 0.6) ** 2)) * 1.5 + 0.25
    if shot.glare:
        colour += _glare(shot)[None] * np.array([1.0, 0.95, 0.8], np.float32)[:, None, None]
    curve = np.clip(colour, 0, 1)
    curve = (
        np.sqrt(curve)
        if abs(sensor.gamma - 1) < 1e-6
        else np.exp(np.log(curve + 1e-5) * np.float32(0.5 * sensor.gamma))
    )
    noise = sensor.noise * {"day": 1.0, "dusk": 1.6, "night": 2.4}[shot.light]
    blur = sensor.blur * (1.15 if shot.light == "night" else 1.0)
    return _digitise(np.moveaxis(curve, 0, -1), blur * shot.size[0] / _NATIVE_ROWS[sensor.kind], noise, shot.key)


def near_infrared(canvas: np.ndarray, shot: Shot) -> np.ndarray:
    """uint8 [H, W, 3], three equal channels: reflectance under the lamp beside the lens, so night changes little."""
    sensor = shot.camera
    x, y = _bands(*shot.size)
    lamp = 1 - sensor.nir_falloff * (x * x + y * y) / 2
    ambient = {"day": 1.0, "dusk": 0.9, "night": 0.85}[shot.light]
    radiance = canvas[NIR] * lamp * (ambient * sensor.nir_gain)
    if shot.glare:
        radiance = radiance + 0.25 * _glare(shot)
    curve = np.exp(np.log(np.clip(radiance, 0, 1) + 1e-5) * np.float32(0.6 * sensor.nir_gamma))
    grey = _digitise(
        curve, 1.1 * sensor.blur * shot.size[0] / _NATIVE_ROWS[sensor.kind], 1.4 * sensor.noise, shot.key + 1
    )
    return np.repeat(grey[:, :, None], 3, axis=2)


def thermal(canvas: np.ndarray, shot: Shot) -> np.ndarray:
    """uint8 [H, W, 3], three equal channels: temperature, soft, with the stripes of an uncooled sensor."""
    sensor = shot.camera
    warm = 0.06 + 0.88 * ((canvas[TIR] - 0.30) * sensor.tir_gain + 0.30 + sensor.tir_offset)
    stripes = white_noise(sensor.index * 31 + 5, 1, shot.size[1])
    grey = _digitise(
        warm + 0.006 * stripes,
        sensor.tir_blur * shot.size[0] / _NATIVE_ROWS[sensor.kind],
        0.6 * sensor.noise,
        shot.key + 2,
    )
    return np.repeat(grey[:, :, None], 3, axis=2)


_SENSORS = {"rgb": visible, "nir": near_infrared, "tir": thermal}

MODALITIES = tuple(_SENSORS)
"""Names of the modalities."""


def expose(canvas: np.ndarray, shot: Shot, modalities: Sequence[str] = MODALITIES) -> dict[str, np.ndarray]:
    """The images of one moment: modality -> uint8 [H, W, 3], from a canvas float32 [5, H, W]."""
    return {modality: _SENSORS[modality](canvas, shot) for modality in modalities}
