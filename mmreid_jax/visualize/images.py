"""Small helpers for photographs in figures: check, resize, encode. Pillow is imported when first needed."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable

import numpy as np

from mmreid_jax.errors import UserError


def as_uint8(image: np.ndarray, where: str) -> np.ndarray:
    """The image as uint8 [H, W, 3]; a single channel ([H, W] or [H, W, 1]) is repeated three times.

    Raises:
      UserError: the array is not 8-bit or has another shape; `where` says which image.
    """
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in (1, 3) or 0 in array.shape:
        raise UserError(
            f"{where}: an image to draw must be uint8 [H, W, 3], but this one is {array.dtype} {list(array.shape)}."
        )
    return np.broadcast_to(array, (*array.shape[:2], 3))


def cell_size(images: Iterable[np.ndarray], area: int, longest: int) -> tuple[int, int]:
    """Height and width in pixels of a thumbnail with the median shape of the images.

    Args:
      images: arrays [H, W, 3].
      area: height x width to aim at, so that upright persons and wide vehicles take the same room.
      longest: bound on the longer side.
    """
    shapes = [image.shape[0] / image.shape[1] for image in images]
    aspect = float(np.median(shapes)) if shapes else 2.0
    height, width = (area * aspect) ** 0.5, (area / aspect) ** 0.5
    shrink = min(1.0, longest / max(height, width))
    return max(8, round(height * shrink)), max(8, round(width * shrink))


def card(text: str, height: int = 256, width: int = 128) -> np.ndarray:
    """A text in lines on a white card, uint8 [height, width, 3]; what does not fit is cut off."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (width, height), "white")
    font = ImageFont.load_default(size=13)
    # 7 pixels: the mean width of a letter of this size.
    lines = textwrap.wrap(text, max(1, (width - 16) // 7))
    ImageDraw.Draw(picture).multiline_text((8, 8), "\n".join(lines), fill=(40, 40, 40), font=font)
    return np.asarray(picture)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The uint8 image [H, W, 3] at [height, width, 3]: bilinear, averaging over source pixels when it shrinks."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def fit(image: np.ndarray, height: int, width: int, fill: int = 236) -> np.ndarray:
    """The image inside [height, width, 3] at its own proportions, centred on a plain ground of grey level `fill`.

    Proportions within a tenth of the cell's are stretched to fill it: thin stripes of ground only distract.
    """
    scale = min(height / image.shape[0], width / image.shape[1])
    inner = [max(1, round(side * scale)) for side in image.shape[:2]]
    if inner[0] >= 0.9 * height and inner[1] >= 0.9 * width:
        return resize(image, height, width)
    cell = np.full((height, width, 3), fill, np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    cell[top : top + inner[0], left : left + inner[1]] = resize(image, *inner)
    return cell


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """The uint8 image [H, W, 3] as a JPEG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
