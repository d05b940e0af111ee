"""Torchreid's random patch: a piece of another training image is pasted on an image, to simulate occlusion.

Torchreid cuts a piece out of every image that it loads, keeps the last 50,000 of them, and once it has a hundred pastes
one of these. What has been loaded before is no function of seed and step; here the piece is cut out of any image of the
training table, by numbers of its own, which is what the pool comes to where it outgrows the table. The piece is of the
same modality as the image (IEEE's fork has one pool for all) and of the image as it is stored, not flipped nor cropped.

Reference: Zhou et al., Omni-Scale Feature Learning for Person Re-Identification, ICCV 2019; ``RandomPatch`` of
torchreid.
"""

from __future__ import annotations

import math

import numpy as np

AREA, ASPECT = (0.01, 0.5), (0.1, 10.0)
"""Shares of the image and ratios height : width of pieces, drawn uniformly."""
ATTEMPTS = 20
"""At a piece. Torchreid makes up to a hundred, but in an image of 256x128 more than one in three fits."""
MIRRORED, TURNED = 0.5, 0.5
"""Shares of the pieces that are mirrored and turned."""
LARGEST_ANGLE = 10
"""Degrees, drawn as a whole number."""
NUMBERS = 9 + 2 * ATTEMPTS
"""Random numbers of an image: whether, from which image, mirrored, turned, angle, both corners; share and aspect."""
FIXED_BITS = 16
"""Binary digits after the point of Pillow's rotation to the nearest pixel."""
FIELDS = 13
"""Numbers that describe a piece, see `draw`."""


def draw(numbers: np.ndarray, size: tuple[int, int], probability: float) -> tuple[np.ndarray, np.ndarray]:
    """What is pasted on images.

    Args:
      numbers: [..., NUMBERS] in [0, 1).
      size: (H, W) of the images.
      probability: of a piece.

    Returns:
      Which image each piece is from, as a share of the table, [...]; and the piece, int32 [..., FIELDS]: height (0 for
      none) and width, top and left where it goes, top and left where it is from, whether it is mirrored, and the six
      coefficients of its turning, see `turning`.
    """
    chosen, which, mirrored, turned, angle = np.moveaxis(numbers[..., :5], -1, 0)
    attempts = numbers[..., 9:].reshape(*chosen.shape, ATTEMPTS, 2)
    share = AREA[0] + (AREA[1] - AREA[0]) * attempts[..., 0]
    aspect = ASPECT[0] + (ASPECT[1] - ASPECT[0]) * attempts[..., 1]
    pixels = share * (size[0] * size[1])
    sides = np.rint(np.sqrt(np.stack([pixels * aspect, pixels / aspect], axis=-1))).astype(np.int64)
    # A line of no pixels can only come of images of some ten pixels.
    fitting = np.all((sides < np.array(size)) & (sides > 0), axis=-1)
    first = np.argmax(fitting, axis=-1)[..., None, None]
    side = np.take_along_axis(sides, first, axis=-2)[..., 0, :]
    pasted = (chosen <= probability) & fitting.any(axis=-1)
    corners = (numbers[..., 5:9].reshape(*chosen.shape, 2, 2) * (np.array(size) - side + 1)[..., None, :]).astype(int)
    degrees = (angle * (2 * LARGEST_ANGLE + 1)).astype(int) - LARGEST_ANGLE
    turns = turning(np.where(turned > 1 - TURNED, degrees, 0), side)
    flags = (mirrored > 1 - MIRRORED)[..., None]
    piece = np.concatenate([side, corners[..., 0, :], corners[..., 1, :], flags, turns], axis=-1)
    return which, np.where(pasted[..., None], piece, 0).astype(np.int32)


def turning(degrees: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Where the pixels of turned pieces come from, in Pillow's fixed-point form.

    Args:
      degrees: int [...], counter-clockwise, at most LARGEST_ANGLE either way.
      side: int [..., 2], height and width of the pieces.

    Returns:
      int64 [..., 6], a to f: pixel (row v, column u) is that of column (a u + b v + c) >> FIXED_BITS and row
      (d u + e v + f) >> FIXED_BITS, black where this is outside.
    """
    angles = [-math.radians(angle % 360) for angle in range(-LARGEST_ANGLE, LARGEST_ANGLE + 1)]
    cosine = np.array([round(math.cos(angle), 15) for angle in angles])[degrees + LARGEST_ANGLE]
    sine = np.array([round(math.sin(angle), 15) for angle in angles])[degrees + LARGEST_ANGLE]
    y, x = side[..., 0] / 2, side[..., 1] / 2
    c, f = cosine * -x + sine * -y + x, -sine * -x + cosine * -y + y
    # Pillow looks at the middle of a pixel.
    exact = [cosine, sine, c + cosine * 0.5 + sine * 0.5, -sine, cosine, f + -sine * 0.5 + cosine * 0.5]
    return np.floor(np.stack(exact, axis=-1) * (1 << FIXED_BITS) + 0.5).astype(np.int64)


def paste(image: np.ndarray, source: np.ndarray, piece: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] with a piece of `source`, an image of the same size; `piece` [FIELDS] as in `draw`."""
    height, width, top, left, from_top, from_left, mirrored, a, b, c, d, e, f = piece.tolist()
    if not height:
        return image
    v, u = np.ogrid[:height, :width]
    column, row = (a * u + b * v + c) >> FIXED_BITS, (d * u + e * v + f) >> FIXED_BITS
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column = width - 1 - column if mirrored else column
    cut = source[from_top : from_top + height, from_left : from_left + width]
    pasted = image.copy()
    pasted[top : top + height, left : left + width] = np.where(
        inside[..., None], cut[row.clip(0, height - 1), column.clip(0, width - 1)], 0
    )
    return pasted
