"""Image transforms on the host: numpy and Pillow, uint8 [H, W, 3] in and out.

Resizing is Pillow's, antialiased, as all reference codes use it (OpenCV's is not the same function). What is random is
drawn first, as an `Augmentation` of plain numbers, and applied afterwards. Normalisation and the noise of random
erasing happen on the device (`mmreid_jax.training.inputs`); here an erased region is only a rectangle.

Randomness: `random_numbers` gives every image of a run its own fixed stretch of a counter-based stream, so pixels do
not depend on the number of threads, worker processes or hosts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from mmreid_jax.errors import UserError

ERASING_ATTEMPTS = 10
NO_RECTANGLE = (0, 0, 0, 0)
# Flip, top, left and whether to erase; area and aspect of every attempt; top and left of the rectangle.
NUMBERS_PER_IMAGE = 4 + 2 * ERASING_ATTEMPTS + 2
INTERPOLATIONS = ("bilinear", "bicubic", "lanczos")


class RandomSource(Protocol):
    """What `draw` and `erasing_rectangle` need of a random generator; Python's `random.Random` has it."""

    def random(self) -> float:
        """Uniform in [0, 1)."""
        ...

    def uniform(self, a: float, b: float) -> float:
        """Uniform between `a` and `b`."""
        ...

    def randint(self, a: int, b: int) -> int:
        """Uniform integer from `a` to `b`, both included."""
        ...


class Numbers:
    """A `RandomSource` that uses up numbers drawn before."""

    def __init__(self, uniform: Iterable[float]) -> None:
        """`uniform` are numbers in [0, 1)."""
        self._next = iter(uniform).__next__

    def random(self) -> float:
        """The next number."""
        return float(self._next())

    def uniform(self, a: float, b: float) -> float:
        """The next number, scaled to [a, b)."""
        return a + (b - a) * self.random()

    def randint(self, a: int, b: int) -> int:
        """The next number, as an integer from `a` to `b`, both included."""
        return a + int(self.random() * (b - a + 1))


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The random choices for one image.

    Attributes:
      mirrored: flip left to right, before padding.
      top: first row of the crop in the padded image; equal to the padding, nothing moves.
      left: first column of it.
      erase: (top, left, height, width) of the rectangle to fill with noise; height 0 is none.
    """

    mirrored: bool
    top: int
    left: int
    erase: tuple[int, int, int, int]


def random_numbers(seed: int, step: int, samples: int, streams: int) -> np.ndarray:
    """float64 [samples, streams, NUMBERS_PER_IMAGE] in [0, 1): row (i, s) depends on (seed, step, i, s, streams) alone.

    Args:
      seed: of the run.
      step: of the run; it fixes the epoch.
      samples: rows wanted: positions 0 to samples - 1 of the global batch. Position and not row of the table, because
        an identity with few images fills its block by repeating them, and copies shall differ.
      streams: independent streams for each sample: one a modality, or one that all modalities share.
    """
    # The last counter word keeps this stream apart from the samplers', which use the same generator and seed.
    stream = np.random.Philox(key=np.array([seed, step], np.uint64), counter=np.array([0, 0, 0, 1], np.uint64))
    return np.random.Generator(stream).random((samples, streams, NUMBERS_PER_IMAGE))


def draw(
    rng: RandomSource, size: tuple[int, int], *, padding: int = 10, flip: float = 0.0, erasing: float = 0.5
) -> Augmentation:
    """Draws flip, crop offset and erasing of one image.

    Args:
      rng: uses at most NUMBERS_PER_IMAGE numbers. Flip and offset are drawn even when switched off, so switching one
        choice on leaves the others as they were.
      size: (H, W) of the image.
      padding: pixels of zeros on each side before the crop of `size`.
      flip: probability of mirroring.
      erasing: probability of erasing.
    """
    mirrored = rng.random() < flip
    top, left = rng.randint(0, 2 * padding), rng.randint(0, 2 * padding)
    return Augmentation(mirrored, top, left, erasing_rectangle(rng, *size, probability=erasing))


def erasing_rectangle(
    rng: RandomSource,
    height: int,
    width: int,
    *,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> tuple[int, int, int, int]:
    """The rectangle (top, left, height, width) that random erasing fills, or NO_RECTANGLE.

    Up to ten attempts at a rectangle with a uniform share of the area and a log-uniform ratio height : width; the first
    that is smaller than the image on both sides is taken.

    Reference: Zhong et al. 2020; the draw order is timm's `RandomErasing` (mode ``pixel``, one rectangle), as in HTT.

    Args:
      rng: source of the choices.
      height: of the image.
      width: of the image.
      probability: of erasing at all.
      area: smallest and largest share of the image.
      aspect: smallest and largest height : width.
    """
    if rng.random() > probability:
        return NO_RECTANGLE
    log_aspect = (math.log(aspect[0]), math.log(aspect[1]))
    for _ in range(ERASING_ATTEMPTS):
        pixels = rng.uniform(*area) * (height * width)
        ratio = math.exp(rng.uniform(*log_aspect))
        h, w = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if h < height and w < width:
            return rng.randint(0, height - h), rng.randint(0, width - w), h, w
    return NO_RECTANGLE


def check_interpolation(name: str) -> str:
    """`name`, if it is one of INTERPOLATIONS; else `UserError`."""
    if name not in INTERPOLATIONS:
        raise UserError(f"unknown interpolation {name!r}; choose one of {', '.join(INTERPOLATIONS)}")
    return name


def resize(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """uint8 [h, w, 3] -> uint8 [H, W, 3] with Pillow's antialiased filter; an image of that size passes unchanged.

    Args:
      image: any size.
      size: (H, W).
      interpolation: one of INTERPOLATIONS; the references train with bicubic and test with bilinear.
    """
    if image.shape[:2] == tuple(size):
        return image
    from PIL import Image

    method = Image.Resampling[check_interpolation(interpolation).upper()]
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((size[1], size[0]), method))


def pad_crop(image: np.ndarray, padding: int, top: int, left: int) -> np.ndarray:
    """Pads [H, W, 3] with `padding` zeros on all sides and crops [H, W, 3] from row `top`, column `left` of that."""
    to_rows, from_rows = _overlap(padding - top, image.shape[0])
    to_columns, from_columns = _overlap(padding - left, image.shape[1])
    out = np.zeros_like(image)
    out[to_rows, to_columns] = image[from_rows, from_columns]
    return out


def _overlap(shift: int, length: int) -> tuple[slice, slice]:
    """Target and source slices of a line of `length` pixels moved by `shift` within its own frame."""
    kept, target, source = max(length - abs(shift), 0), max(shift, 0), max(-shift, 0)
    return slice(target, target + kept), slice(source, source + kept)


def apply(image: np.ndarray, augmentation: Augmentation, padding: int) -> np.ndarray:
    """Flips, pads and crops uint8 [H, W, 3] as drawn; the erasing is left to the device."""
    mirrored = image[:, ::-1] if augmentation.mirrored else image
    return pad_crop(mirrored, padding, augmentation.top, augmentation.left)


def normalise(image: np.ndarray, mean: float | np.ndarray = 0.5, std: float | np.ndarray = 0.5) -> np.ndarray:
    """uint8 [..., 3] -> float32 (x / 255 - mean) / std; the host's form of what the step does on the device."""
    scaled = image.astype(np.float32) / np.float32(255)
    return (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
