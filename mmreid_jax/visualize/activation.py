"""Activation maps: where the last convolutional maps of a CNN are strong, laid over the images.

Reference: file ``tools/visualize_actmap.py`` of torchreid; the sum of squares is F_sum^2 of Zagoruyko and Komodakis,
Paying More Attention to Attention, ICLR 2017.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.visualize import attention, style
from mmreid_jax.visualize.images import as_uint8

IMAGE_SHARE = 0.3
"""Share of the photograph in an overlay; the rest is the map."""

NOTE = (
    "Where the last convolutional maps are strong: the sum of squares over their channels, cold to hot from blue to "
    "red, each map stretched to its own range. From left to right: image, map, and both."
)
"""What the maps show, for a page."""


def energy(maps: np.ndarray) -> np.ndarray:
    """The sum of squares over channels, divided by its L2 norm over positions.

    Args:
      maps: float [B, h, w, C].

    Returns:
      float [B, h, w], at least float32; zero where a map is zero.

    Raises:
      UserError: another shape, or numbers that are not finite.
    """
    array = np.asarray(maps)
    if array.ndim != 4 or 0 in array.shape:
        raise UserError(f"activation maps must be [batch, rows, columns, channels], not {list(array.shape)}.")
    array = array.astype(np.result_type(array.dtype, np.float32), copy=False)
    # A common factor is divided out below; without it, squares of large half-precision maps could overflow.
    largest = np.abs(array).max(axis=(1, 2, 3), keepdims=True)
    if not np.isfinite(largest).all():
        raise UserError("activation maps must be finite; the model's last convolution gives NaN or infinity.")
    strong = np.square(array / np.where(largest > 0, largest, 1)).sum(axis=-1)
    norm = np.sqrt(np.square(strong).sum(axis=(1, 2), keepdims=True))
    return strong / np.where(norm > 0, norm, 1)


def heat(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Activation maps at the size of the image: `energy`, enlarged, stretched to 0..255 for each sample.

    Enlarging is bilinear with half-pixel centres, edges repeated and no antialiasing (OpenCV's); the stretched value
    is rounded down.

    Args:
      maps: float [B, h, w, C].
      size: (H, W) of the result.

    Returns:
      uint8 [B, H, W]; 0 everywhere for a map without contrast.

    Raises:
      UserError: see `energy`.
    """
    small = energy(maps)
    rows, columns = (_interpolation(n, N) for n, N in zip(small.shape[1:], size, strict=True))
    large = rows @ small.astype(np.float64) @ columns.T
    low, high = (reduce(axis=(1, 2), keepdims=True) for reduce in (large.min, large.max))
    # Interpolation of a constant map leaves rounding noise, which must not be stretched to full contrast.
    spread = np.where(high - low > 1e-9 * high, high - low, np.inf)
    return np.floor(255 * (large - low) / (spread + 1e-12)).astype(np.uint8)


def _interpolation(old: int, new: int) -> np.ndarray:
    """The matrix float64 [new, old] that resamples a line bilinearly, half-pixel centres, edges repeated."""
    place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    left = np.minimum(place.astype(int), max(old - 2, 0))
    share = place - left
    matrix = np.zeros((new, old))
    matrix[np.arange(new), left] = 1 - share
    if old > 1:
        matrix[np.arange(new), left + 1] = share
    return matrix


def jet(levels: np.ndarray) -> np.ndarray:
    """The colours of MATLAB's and OpenCV's JET: uint8 [...] -> uint8 [..., 3], red, green, blue.

    matplotlib's map of that name has other corners and differs by up to 31 levels.
    """
    distance = np.abs(4 * (levels[..., None] / 255) - np.array([3.0, 2.0, 1.0]))
    return np.round(255 * np.clip(1.5 - distance, 0, 1)).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class ActivationExample:
    """One sample with the last convolutional maps of each modality.

    Attributes:
      images: modality -> uint8 [H, W, 3].
      maps: modality -> float [h, w, C]; a modality without maps is shown as the plain image alone.
      label: what is printed beside it, such as ``identity 258, camera 1``.
    """

    images: Mapping[str, np.ndarray]
    maps: Mapping[str, np.ndarray]
    label: str = ""

    @property
    def gap(self) -> int:
        """Pixels between the panels of a modality."""
        return 10

    @property
    def words(self) -> tuple[str, ...]:
        """What each panel shows."""
        return "image", "activation map", "image under its activation map"

    def panels(self) -> dict[str, tuple[np.ndarray | None, ...]]:
        """Modality -> image, map in colours, both laid together (None where there is no map), all uint8 [H, W, 3]."""
        panels_of: dict[str, tuple[np.ndarray | None, ...]] = {}
        for name, given in self.images.items():
            image = as_uint8(given, f"{self.label} {name}")
            if name not in self.maps:
                panels_of[name] = (image, None, None)
                continue
            color = jet(heat(self.maps[name][None], image.shape[:2])[0])
            both = IMAGE_SHARE * image + (1 - IMAGE_SHARE) * color
            panels_of[name] = (image, color, np.round(both).astype(np.uint8))
        return panels_of


def activation_picture(
    examples: Sequence[ActivationExample], *, name: str = "activation", title: str = "", caption: str = ""
) -> style.Picture:
    """Draws examples in rows and modalities in columns, each as image, map and both.

    Args:
      examples: at least one.
      name: stem of the file name.
      title: heading of the picture.
      caption: sentence printed under it on a page.

    Raises:
      UserError: there is no example to draw, or an image or a map has the wrong shape.
    """
    if not examples:
        raise UserError("there is no activation map to draw; give at least one example.")
    return attention.maps_picture(examples, "Activation maps", name=name, title=title, caption=caption)
