"""Counter-based random numbers: they depend on the seed and on what is asked for, never on the order of asking."""

from __future__ import annotations

import functools
import zlib

import numpy as np

_NOISE_SIDE = 1024


def generator(seed: int, purpose: str, *coordinates: int) -> np.random.Generator:
    """The random generator of one thing, such as ``generator(0, "person", 17)``.

    Args:
      seed: seed of the whole set.
      purpose: what the numbers are for; two purposes never share numbers.
      coordinates: up to three integers (identity, camera, frame, ...), negative ones allowed.
    """
    words = [coordinate % 2**64 for coordinate in coordinates] + [0] * (3 - len(coordinates))
    key = np.array([seed % 2**64, zlib.crc32(purpose.encode())], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, *words], np.uint64)))


@functools.cache
def _noise_bank() -> np.ndarray:
    return generator(0, "noise bank").standard_normal((_NOISE_SIDE, _NOISE_SIDE), dtype=np.float32)


def white_noise(key: int, height: int, width: int) -> np.ndarray:
    """float32 [height, width], standard normal noise: a window of one fixed field, placed by `key`.

    Drawing 30,000 fresh normal numbers an image would cost as much as drawing the person.
    """
    bank = _noise_bank()
    top = (key * 2654435761 + 12345) % (_NOISE_SIDE - min(height, _NOISE_SIDE - 1))
    left = (key * 40503 + 977) % (_NOISE_SIDE - min(width, _NOISE_SIDE - 1))
    if height >= _NOISE_SIDE or width >= _NOISE_SIDE:
        rows = np.arange(height) % _NOISE_SIDE
        return bank[rows][:, np.arange(width) % _NOISE_SIDE]
    return bank[top : top + height, left : left + width]


def cloud(random: np.random.Generator, shape: tuple[int, int], cells: float, octaves: int = 3) -> np.ndarray:
    """float32 of `shape` (height, width), about -1...1: smooth noise, `cells` bumps high, with finer octaves."""
    from PIL import Image

    height, width = shape
    total = np.zeros(shape, np.float32)
    weight, norm = 1.0, 0.0
    for _ in range(octaves):
        rows = max(2, round(cells) + 1)
        columns = max(2, round(cells * width / height) + 1)
        grid = random.uniform(-1, 1, (rows, columns)).astype(np.float32)
        total += weight * np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))
        norm += weight
        weight, cells = weight / 2, cells * 2
    return total / norm


@functools.cache
def folds() -> np.ndarray:
    """float32 [768, 768], standardised: creases of cloth, longer than wide, at the scale of a 256 pixel high person."""
    random = generator(0, "folds")
    creases = cloud(random, (768, 768), 33, octaves=2) + 0.8 * cloud(random, (768, 768), 90, octaves=2)
    creases = np.abs(creases) - np.abs(creases).mean()
    return (creases / creases.std()).astype(np.float32)
