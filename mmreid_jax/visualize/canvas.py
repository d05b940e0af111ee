"""Pictures laid out pixel by pixel: photographs and frames in an array, texts written over them."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np

from mmreid_jax.errors import printable
from mmreid_jax.owned import PICTURE_MARK
from mmreid_jax.visualize.style import DPI, LIGHT, Picture, load_matplotlib, new_figure, settings

_LONGEST_TEXT = 1000


class Canvas:
    """Pixels to be filled and texts to be written over them; coordinates are pixels from the top left.

    matplotlib writes the texts alone. Sending the photographs through it as well would resample nothing and cost most
    of the time.

    Attributes:
      pixels: uint8 [H, W, 3], white at first.
    """

    def __init__(self, height: int, width: int) -> None:
        """An empty page of light paper."""
        self.pixels = np.full((height, width, 3), 255, np.uint8)
        self._texts: list[tuple[float, float, str, dict[str, Any]]] = []

    def write(self, x: float, y: float, text: str, **looks: Any) -> None:
        """Writes a text, its upper edge centred at (x, y) unless the matplotlib properties `looks` say otherwise."""
        self._texts.append((x, y, printable(text, _LONGEST_TEXT), looks))

    def picture(self, *, name: str, alt: str, caption: str) -> Picture:
        """The finished picture; equal canvases give equal bytes."""
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        buffer, mark = io.BytesIO(), PngInfo()
        for key, text in PICTURE_MARK.items():
            mark.add_text(key, text)
        Image.fromarray(self._with_texts()).save(buffer, format="PNG", pnginfo=mark)
        return Picture(name, alt, caption, buffer.getvalue())

    def _with_texts(self) -> np.ndarray:
        matplotlib = load_matplotlib()
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.transforms import IdentityTransform

        height, width = self.pixels.shape[:2]
        with matplotlib.rc_context(settings(LIGHT)):
            # Half a pixel more, because matplotlib cuts the size in pixels down to an integer.
            figure = new_figure(LIGHT, (width + 0.5) / DPI, (height + 0.5) / DPI)
            figure.set(dpi=DPI, facecolor="none")
            figure.set_layout_engine("none")
            canvas = FigureCanvasAgg(figure)
            for x, y, text, looks in self._texts:
                place: dict[str, Any] = {
                    "transform": IdentityTransform(),
                    "va": "top",
                    "ha": "center",
                    "color": LIGHT.ink,
                }
                figure.text(x, height - y, text, **place | looks)
            with warnings.catch_warnings():
                # Letters that the font lacks are boxes here; the page beside has them.
                warnings.filterwarnings("ignore", message="Glyph .* missing from")
                canvas.draw()
            layer = np.asarray(canvas.buffer_rgba())
        rows, columns = np.nonzero(layer[..., 3])
        ink, share = layer[rows, columns, :3], layer[rows, columns, 3:] / 255
        image = self.pixels.copy()
        image[rows, columns] = np.round(share * ink + (1 - share) * image[rows, columns])
        return image
