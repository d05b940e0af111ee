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
import types
from collections.abc import Iterable, Mapping
from typing import Any
from typing import Protocol as Interface

import numpy as np

from mmreid_jax.data import patches
from mmreid_jax.errors import UserError

ERASING_ATTEMPTS = 10
NO_RECTANGLE = (0, 0, 0, 0)
# Flip, top, left and whether to erase; area and aspect of every attempt; top and left of the rectangle.
NUMBERS_PER_IMAGE = 4 + 2 * ERASING_ATTEMPTS + 2
# Whether to enlarge, top and left of the crop; brightness, contrast and which of them comes first.
NUMBERS_OF_OPTIONS = 6
ENLARGEMENT = 1.125
RESIZE_BITS = 22
"""Binary digits after the point of the weights in Pillow's resize."""
INTERPOLATIONS = ("bilinear", "bicubic", "lanczos")
TORCHREID_ERASING: dict[str, Any] = {"area": (0.02, 0.4), "log_aspect": False}
"""What torchreid's random erasing draws otherwise; options of `erasing_rectangle`."""


class RandomSource(Interface):
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
      erase: (top, left, height, width) of the rectangle to fill; height 0 is none.
      enlarged: first row and column of the crop out of the enlarged image; None for no enlargement.
      brightness: factor of all values.
      contrast: factor of the distance of all values from the mean grey.
      contrast_first: contrast is changed before brightness.
      grey: colours are taken away.
    """

    mirrored: bool
    top: int
    left: int
    erase: tuple[int, int, int, int]
    enlarged: tuple[int, int] | None = None
    brightness: float = 1.0
    contrast: float = 1.0
    contrast_first: bool = False
    grey: bool = False


def random_numbers(
    seed: int, step: int, samples: int, streams: int, count: int = NUMBERS_PER_IMAGE, series: int = 1
) -> np.ndarray:
    """float64 [samples, streams, count] in [0, 1): row (i, s) depends on (seed, step, i, s, streams, series) alone.

    Args:
      seed: of the run.
      step: of the run; it fixes the epoch.
      samples: rows wanted: positions 0 to samples - 1 of the global batch. Position and not row of the table, because
        an identity with few images fills its block by repeating them, and copies shall differ.
      streams: independent streams for each sample: one a modality, or one that all modalities share.
      count: numbers of an image.
      series: 1 for `draw`, 2 for `draw_options`, 3 for the choice among captions, 4 for greyscale, 5 for enhancements,
        6 for patches, so that switching one of them on leaves the other choices alone.
    """
    # The last counter word keeps these streams apart from the samplers', which use the same generator and seed.
    stream = np.random.Philox(key=np.array([seed, step], np.uint64), counter=np.array([0, 0, 0, series], np.uint64))
    return np.random.Generator(stream).random((samples, streams, count))


def draw(
    rng: RandomSource,
    size: tuple[int, int],
    *,
    padding: int = 10,
    flip: float = 0.0,
    erasing: float = 0.5,
    rectangle: Mapping[str, Any] = types.MappingProxyType({}),
) -> Augmentation:
    """Draws flip, crop offset and erasing of one image.

    Args:
      rng: uses at most NUMBERS_PER_IMAGE numbers, and two for every further attempt at a rectangle. Flip and offset are
        drawn even when switched off, so switching one choice on leaves the others as they were.
      size: (H, W) of the image.
      padding: pixels of zeros on each side before the crop of `size`.
      flip: probability of mirroring.
      erasing: probability of erasing.
      rectangle: further options of `erasing_rectangle`.
    """
    mirrored = rng.random() < flip
    top, left = rng.randint(0, 2 * padding), rng.randint(0, 2 * padding)
    return Augmentation(mirrored, top, left, erasing_rectangle(rng, *size, probability=erasing, **rectangle))


def draw_options(
    rng: RandomSource,
    size: tuple[int, int],
    *,
    random_crop: float = 0.0,
    brightness: float = 0.0,
    contrast: float = 0.0,
) -> dict[str, Any]:
    """Draws what torchreid offers beside flip and erasing: fields of `Augmentation` by name.

    Reference: torchreid's ``random_crop`` and ``color_jitter``; its ``random_patch`` is drawn in `patches`.

    Args:
      rng: uses NUMBERS_OF_OPTIONS numbers.
      size: (H, W) of the image.
      random_crop: probability of enlarging the image by ENLARGEMENT and cropping it at random.
      brightness: the factor lies within 1 +- this.
      contrast: likewise.
    """
    height, width = size
    tall, wide = enlarged_size(size)
    chosen = rng.random() < random_crop
    top, left = round(rng.uniform(0, tall - height)), round(rng.uniform(0, wide - width))
    return {
        "enlarged": (top, left) if chosen else None,
        "brightness": rng.uniform(1 - brightness, 1 + brightness),
        "contrast": rng.uniform(1 - contrast, 1 + contrast),
        "contrast_first": rng.random() < 0.5,
    }


def enlarged_size(size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) of an image that is to be cropped to `size`."""
    return round(size[0] * ENLARGEMENT), round(size[1] * ENLARGEMENT)


def erasing_rectangle(
    rng: RandomSource,
    height: int,
    width: int,
    *,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    log_aspect: bool = True,
    attempts: int = ERASING_ATTEMPTS,
) -> tuple[int, int, int, int]:
    """The rectangle (top, left, height, width) that random erasing fills, or NO_RECTANGLE.

    Up to `attempts` at a rectangle with a uniform share of the area and a random ratio height : width; the first one
    smaller than the image on both sides is taken.

    Reference: Zhong et al. 2020; the draw order is timm's `RandomErasing` (mode ``pixel``, one rectangle), as in HTT.
    torchreid's has `TORCHREID_ERASING`, and up to a hundred attempts, of which the eleventh is needed once in 10^12.

    Args:
      rng: source of the choices.
      height: of the image.
      width: of the image.
      probability: of erasing at all.
      area: smallest and largest share of the image.
      aspect: smallest and largest height : width.
      log_aspect: the ratio's logarithm is uniform, else the ratio itself.
      attempts: how many; each uses two numbers.
    """
    if rng.random() > probability:
        return NO_RECTANGLE
    logarithms = (math.log(aspect[0]), math.log(aspect[1]))
    for _ in range(attempts):
        pixels = rng.uniform(*area) * (height * width)
        ratio = math.exp(rng.uniform(*logarithms)) if log_aspect else rng.uniform(*aspect)
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


def apply(
    image: np.ndarray,
    augmentation: Augmentation,
    padding: int,
    patch: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Flips, pads, crops, patches, greys and changes the light of an image as drawn; erasing is left to the device.

    Args:
      image: uint8 [H, W, 3].
      augmentation: what is drawn.
      padding: pixels of zeros on each side before the crop.
      patch: an image of the same size and the piece of it that is pasted, see `patches.draw`.

    Returns:
      uint8 [H, W, 3].
    """
    size = image.shape[:2]
    image = image[:, ::-1] if augmentation.mirrored else image
    image = pad_crop(image, padding, augmentation.top, augmentation.left)
    if augmentation.enlarged is not None:
        top, left = augmentation.enlarged
        image = resize(image, enlarged_size(size), "bilinear")[top : top + size[0], left : left + size[1]]
    if patch is not None:
        image = patches.paste(image, *patch)
    changes = [(brighten, augmentation.brightness), (change_contrast, augmentation.contrast)]
    for change, factor in reversed(changes) if augmentation.contrast_first else changes:
        image = change(image, factor)
    return grey(image) if augmentation.grey else image


def brighten(image: np.ndarray, factor: float) -> np.ndarray:
    """uint8 [H, W, 3] times `factor`, as Pillow's and torchvision's brightness."""
    return _blend(image, np.zeros(1, np.uint8), factor)


def change_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """uint8 [H, W, 3] moved away from its mean grey (ITU-R 601-2 luma) by `factor`, as Pillow's and torchvision's."""
    if factor == 1:
        return image
    return _blend(image, np.array([int(_luma(image).mean() + 0.5)], np.uint8), factor)


def brightness_values(factors: np.ndarray) -> np.ndarray:
    """uint8 [..., 256]: what `brighten` makes of each value, for factors [...]."""
    values = np.arange(256, dtype=np.float32)
    return np.clip(np.asarray(factors, np.float32)[..., None] * values, 0, 255).astype(np.uint8)


def contrast_products(factors: np.ndarray) -> np.ndarray:
    """float32 [..., 256]: factor times a distance of 0 to 255 from the mean grey, as `change_contrast` rounds it.

    A device may compile product and sum into one operation that rounds once; of products made here it has only to sum.
    """
    return np.asarray(factors, np.float32)[..., None] * np.arange(256, dtype=np.float32)


def enlarging_taps(length: int) -> tuple[np.ndarray, np.ndarray]:
    """How each pixel of an enlarged line comes from `length` pixels, in Pillow's fixed-point bilinear form.

    Returns:
      int32 [L, T], the pixels that it is made of (some of them with weight 0), and int32 [L, T], their weights in units
      of 2^-RESIZE_BITS: the value is (sum of weight * pixel + half a unit) >> RESIZE_BITS, which fits into 32 bits.
    """
    (enlarged, _) = enlarged_size((length, length))
    scale = length / enlarged
    centers = (np.arange(enlarged) + 0.5) * scale
    # Pillow's filter of an enlargement reaches one pixel to both sides.
    first = np.maximum((centers - 1 + 0.5).astype(np.int64), 0)
    stop = np.minimum((centers + 1 + 0.5).astype(np.int64), length)
    pixels = first[:, None] + np.arange(3)
    weights = np.maximum(1 - np.abs(pixels - centers[:, None] + 0.5), 0) * (pixels < stop[:, None])
    # Summed in Pillow's order, one pixel after the other.
    total = (weights[:, 0] + weights[:, 1]) + weights[:, 2]
    whole = (0.5 + weights / total[:, None] * (1 << RESIZE_BITS)).astype(np.int32)
    return np.minimum(pixels, length - 1).astype(np.int32), whole


def grey(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] -> its ITU-R 601-2 luma in all three channels, as Pillow's and torchvision's greyscale."""
    return np.repeat(_luma(image).astype(np.uint8)[..., None], 3, axis=2)


def _luma(image: np.ndarray) -> np.ndarray:
    """Int64 [H, W], Pillow's integer form of 0.299 R + 0.587 G + 0.114 B."""
    return (image.astype(np.int64) @ np.array([19595, 38470, 7471]) + 0x8000) >> 16


def _blend(image: np.ndarray, other: np.ndarray, factor: float) -> np.ndarray:
    """other + factor (image - other), clipped and cut off to uint8 as Pillow does it; `image` itself for factor 1."""
    if factor == 1:
        return image
    start = other.astype(np.float32)
    return np.clip(start + np.float32(factor) * (image.astype(np.float32) - start), 0, 255).astype(np.uint8)


def normalise(image: np.ndarray, mean: float | np.ndarray = 0.5, std: float | np.ndarray = 0.5) -> np.ndarray:
    """uint8 [..., 3] -> float32 (x / 255 - mean) / std; the host's form of what the step does on the device."""
    scaled = image.astype(np.float32) / np.float32(255)
    return (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
