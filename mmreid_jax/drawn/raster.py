"""Painting rounded, shaded, textured parts on a canvas of five channels with smooth edges.

A canvas is float32 [5, H, W]: red, green, blue and near-infrared radiance (reflectance times light) and temperature.
Shapes are evaluated as distances on their bounding boxes, so edges are smooth without drawing at twice the size, and
every pixel knows its surface normal (for light) and its place on the part (for texture).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

RED, GREEN, BLUE, NIR, TIR = range(5)


@dataclasses.dataclass(frozen=True)
class Light:
    """How light falls: `direction` in image axes (right, down, towards the camera); shares of ambient and direct light.

    `lamp` is the share of the near-infrared light that comes from the lamp beside the lens.
    """

    direction: tuple[float, float, float]
    ambient: float
    direct: float
    lamp: float

    def visible(self, normal: Sequence[np.ndarray]) -> np.ndarray:
        """float32 [h, w], visible light on surfaces with this normal (three arrays [h, w])."""
        right, down, towards = self.direction
        facing = right * normal[0] + down * normal[1] + towards * normal[2]
        return self.ambient * (0.8 - 0.2 * normal[1]) + self.direct * np.maximum(facing, 0)

    def infrared(self, normal: Sequence[np.ndarray]) -> np.ndarray:
        """float32 [h, w], near-infrared light: brightest where the surface faces the camera."""
        return (1 - self.lamp) * (0.75 - 0.25 * normal[1]) + self.lamp * (0.25 + 0.75 * normal[2])


@dataclasses.dataclass(frozen=True)
class Patch:
    """Pixels covered by one part.

    Attributes:
      window: rows and columns of the canvas.
      cover: float32 [h, w], share of each pixel that the part covers.
      normal: three float32 [h, w], unit surface normal in image axes (right, down, towards the camera).
      across, along: float32 [h, w], place on the part: -1...1 from edge to edge, 0...1 from start to end.
      outside: float32 [h, w], pixels from the edge, positive outside.
    """

    window: tuple[slice, slice]
    cover: np.ndarray
    normal: tuple[np.ndarray, np.ndarray, np.ndarray]
    across: np.ndarray
    along: np.ndarray
    outside: np.ndarray


def _window(
    size: tuple[int, int], left: float, top: float, right: float, bottom: float
) -> tuple[slice, slice, np.ndarray, np.ndarray] | None:
    """The box clipped to the canvas, with its pixel centres (columns [1, w], rows [h, 1]); None if it lies outside."""
    x0, x1 = max(0, math.floor(left)), min(size[1], math.ceil(right) + 1)
    y0, y1 = max(0, math.floor(top)), min(size[0], math.ceil(bottom) + 1)
    if x0 >= x1 or y0 >= y1:
        return None
    columns = np.arange(x0, x1, dtype=np.float32)[None, :] + 0.5
    rows = np.arange(y0, y1, dtype=np.float32)[:, None] + 0.5
    return slice(y0, y1), slice(x0, x1), columns, rows


def tube(
    size: tuple[int, int],
    start: Sequence[float],
    end: Sequence[float],
    radii: Sequence[float],
    *,
    flat_start: bool = False,
    flat_end: bool = False,
    margin: float = 4,
) -> Patch | None:
    """A rounded limb from `start` to `end` (x, y in pixels).

    Args:
      size: (height, width) of the canvas.
      radii: half-widths in pixels at equally spaced places from start to end, at least two.
      flat_start, flat_end: cut straight (a hem) instead of round.
      margin: pixels around the part that receive its contact shadow.
    """
    reach = max(radii) + margin
    box = _window(
        size,
        min(start[0], end[0]) - reach,
        min(start[1], end[1]) - reach,
        max(start[0], end[0]) + reach,
        max(start[1], end[1]) + reach,
    )
    if box is None:
        return None
    rows_slice, columns_slice, columns, rows = box
    axis_x, axis_y = end[0] - start[0], end[1] - start[1]
    length = math.hypot(axis_x, axis_y)
    if length < 1e-3:  # the limb points at the camera
        axis_x, axis_y, length = 0.0, 1e-3, 1e-3
    axis_x, axis_y = axis_x / length, axis_y / length
    x, y = columns - start[0], rows - start[1]
    forward = x * axis_x + y * axis_y
    side = y * axis_x - x * axis_y
    inside = np.clip(forward, 0, length)
    along = inside / length
    if len(radii) == 2:
        radius = radii[0] + (radii[1] - radii[0]) * along
    else:
        radius = np.interp(along, np.linspace(0, 1, len(radii)), radii).astype(np.float32)
    beyond = forward - inside
    distance = np.sqrt(side * side + beyond * beyond)
    outside = distance - radius
    if flat_start:
        outside = np.maximum(outside, -forward)
    if flat_end:
        outside = np.maximum(outside, forward - length)
    across = np.clip(side / np.maximum(radius, 0.5), -1, 1)
    bend = np.sqrt(1 - across * across)
    return Patch(
        (rows_slice, columns_slice),
        np.clip(0.5 - outside, 0, 1),
        (-axis_y * across, axis_x * across, bend),
        across,
        along,
        outside,
    )


def ball(size: tuple[int, int], centre: Sequence[float], radii: Sequence[float], *, margin: float = 4) -> Patch | None:
    """An ellipsoid at `centre` (x, y in pixels) with half-axes `radii` (right, down) in pixels."""
    radius_x, radius_y = max(radii[0], 0.3), max(radii[1], 0.3)
    box = _window(
        size,
        centre[0] - radius_x - margin,
        centre[1] - radius_y - margin,
        centre[0] + radius_x + margin,
        centre[1] + radius_y + margin,
    )
    if box is None:
        return None
    rows_slice, columns_slice, columns, rows = box
    x = (columns - centre[0]) / radius_x + np.zeros_like(rows)
    y = (rows - centre[1]) / radius_y + np.zeros_like(columns)
    squared = x * x + y * y
    radius = np.sqrt(squared)
    outside = (radius - 1) * min(radius_x, radius_y)
    scale = 1 / np.maximum(radius, 1)
    towards = np.sqrt(np.maximum(1 - squared, 0))
    return Patch(
        (rows_slice, columns_slice),
        np.clip(0.5 - outside, 0, 1),
        (x * scale, y * scale, towards),
        np.clip(x, -1, 1),
        np.clip((y + 1) / 2, 0, 1),
        outside,
    )


def polygon(
    size: tuple[int, int], corners: np.ndarray, *, oversample: int = 4
) -> tuple[tuple[slice, slice], np.ndarray] | None:
    """Coverage of any polygon.

    Args:
      size: (height, width) of the canvas.
      corners: float [n, 2], x and y in pixels.
      oversample: sub-pixels a side.

    Returns:
      The window of the canvas and float32 [h, w] coverage there, or None where the polygon lies outside.
    """
    from PIL import Image, ImageDraw

    box = _window(size, corners[:, 0].min(), corners[:, 1].min(), corners[:, 0].max(), corners[:, 1].max())
    if box is None:
        return None
    rows_slice, columns_slice, columns, rows = box
    picture = Image.new("L", (columns.size * oversample, rows.size * oversample))
    places = (corners - (columns_slice.start, rows_slice.start)) * oversample - 0.5
    ImageDraw.Draw(picture).polygon([(float(x), float(y)) for x, y in places], fill=255)
    return (rows_slice, columns_slice), np.asarray(picture.reduce(oversample), np.float32) / 255


def paint(
    canvas: np.ndarray,
    patch: Patch | None,
    reflectance: Sequence[float | np.ndarray],
    temperature: float | np.ndarray,
    light: Light,
    *,
    relief: float | np.ndarray = 1.0,
    cover: np.ndarray | None = None,
    shadow: float = 0.35,
    shadow_width: float = 3.0,
) -> None:
    """Paints a part over the canvas, in place.

    Args:
      reflectance: red, green, blue and near infrared, each a number or [h, w].
      temperature: a number or [h, w].
      relief: factor on the visible light (and, weaker, on the near infrared) for creases.
      cover: coverage instead of the patch's own; then no contact shadow is cast.
      shadow: strength of the contact shadow on what lies beneath; shadow_width: its width in pixels.
    """
    if patch is None:
        return
    window = canvas[:, patch.window[0], patch.window[1]]
    visible = light.visible(patch.normal) * relief
    infrared = light.infrared(patch.normal) * (0.5 + 0.5 * np.asarray(relief))
    if cover is None:
        cover = patch.cover
        if shadow:
            window[:TIR] *= 1 - shadow * np.exp(-np.maximum(patch.outside, 0) / shadow_width)
    for channel in (RED, GREEN, BLUE):
        window[channel] += cover * (reflectance[channel] * visible - window[channel])
    window[NIR] += cover * (reflectance[NIR] * infrared - window[NIR])
    # The rim of a body radiates a little less towards the camera.
    window[TIR] += cover * (temperature * (0.93 + 0.07 * patch.normal[2]) - window[TIR])


def smoothstep(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between."""
    share = np.clip((value - low) / (high - low), 0, 1)
    return share * share * (3 - 2 * share)
