"""The look of every figure: colours, fonts, and the finished picture in light and dark.

Figures are drawn on matplotlib's Agg canvas without pyplot, so nothing here touches the caller's matplotlib settings,
needs a display, or keeps figures alive. matplotlib is imported when the first figure is drawn, never on import of this
package.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmreid_jax.errors import UserError
from mmreid_jax.owned import PICTURE_MARK
from mmreid_jax.paths import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RIGHT = (18, 140, 92)
"""Frame colour (8-bit RGB) of a match with the query's identity."""

WRONG = (206, 58, 60)
"""Frame colour (8-bit RGB) of a match with another identity."""

UNKNOWN = (130, 140, 152)
"""Frame colour (8-bit RGB) of a match whose identity is not known."""

QUERY = (0, 0, 0)
"""Frame colour (8-bit RGB) of the query on light paper; a page takes the colour of its text."""

WIDTH = 10.0
"""Inches of a chart that fills a card of the report."""

DPI = 100
"""Pixels per inch of figures placed pixel by pixel (ranked lists, attention)."""


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours of a figure, as CSS hexadecimal strings.

    Attributes:
      name: ``light`` or ``dark``.
      paper: background.
      ink: text.
      muted: secondary text and axes.
      grid: grid lines and quiet fills.
      series: colours of the first, second, ... data series; hues that stay apart for colour-blind readers.
    """

    name: str
    paper: str
    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]

    def color(self, position: int) -> str:
        """The colour of the data series at `position`, starting again when the palette is used up."""
        return self.series[position % len(self.series)]


LIGHT = Theme(
    name="light",
    paper="#ffffff",
    ink="#1d2733",
    muted="#667280",
    grid="#e3e8ed",
    series=("#2f6db5", "#d97f1f", "#2a9470", "#8d57b3", "#c2456b", "#6f7f1d", "#4aa3c7", "#7a6a5a"),
)
DARK = Theme(
    name="dark",
    paper="#1a2027",
    ink="#e4e9ee",
    muted="#9aa6b2",
    grid="#323b45",
    series=("#6ea8ea", "#f0a24e", "#56c49b", "#bd8fe0", "#ec7f9f", "#b3c25a", "#7fcbe8", "#b9a896"),
)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A finished figure.

    Attributes:
      name: stem of its file name, such as ``training_curves``.
      alt: what the figure shows, in one sentence, for readers who cannot see it.
      caption: the sentence printed under it.
      png: encoded PNG on light paper.
      svg_light, svg_dark: the same figure as vector graphics for a page in light and in dark, or None where the figure
        consists of photographs.
    """

    name: str
    alt: str
    caption: str
    png: bytes
    svg_light: bytes | None = None
    svg_dark: bytes | None = None

    def write(self, folder: str | Path) -> Path:
        """Writes ``<folder>/<name>.png`` and returns its path; the folder is made if it is absent.

        Raises:
          UserError: the folder or the file cannot be written.
        """
        path = Path(folder) / f"{self.name}.png"
        write_bytes(path, self.png)
        return path


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all (beside its place first, then moved), making its folder if it is absent.

    Raises:
      UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror}); free some space, or name a folder that can be written."
        ) from error


def load_matplotlib() -> Any:
    """matplotlib, whatever backend the environment asks for.

    Its import fails where ``MPLBACKEND`` names a backend that is not installed, as a notebook's does in the programs
    that the notebook starts. Nothing here depends on the backend, so it is set afterwards, for whoever else draws, if
    that is possible.
    """
    wanted = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if wanted is not None:
            os.environ["MPLBACKEND"] = wanted
    if wanted:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = wanted
    return matplotlib


def new_figure(theme: Theme, width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches on the theme's paper, drawn by Agg."""
    load_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1)
    figure = Figure(figsize=(width, height), facecolor=theme.paper, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def settings(theme: Theme) -> Any:
    """The matplotlib settings of every figure in a theme."""
    return {
        "axes.axisbelow": True,
        "axes.edgecolor": theme.muted,
        "axes.facecolor": theme.paper,
        "axes.grid": True,
        "axes.labelcolor": theme.muted,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": theme.ink,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlepad": 10,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9.5,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "legend.labelcolor": theme.ink,
        "lines.linewidth": 1.9,
        "svg.fonttype": "path",
        "svg.hashsalt": "mmreid_jax",  # the ids inside an SVG are random otherwise, and equal figures differ
        "text.color": theme.ink,
        "text.parse_math": False,  # file names and labels may hold a dollar sign
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
    }


def draw_picture(draw: Callable[[Theme], Figure], *, name: str, alt: str, caption: str, dpi: float = 150) -> Picture:
    """Draws a chart in both themes and encodes it; equal input gives equal bytes.

    Args:
      draw: theme -> figure; called with the library's matplotlib settings in force.
      name, alt, caption: see `Picture`.
      dpi: pixels per inch of the PNG.
    """
    matplotlib = load_matplotlib()

    def encoded(theme: Theme, *formats: str) -> list[bytes]:
        with matplotlib.rc_context(settings(theme)):
            figure = draw(theme)
            files = []
            for kind in formats:
                buffer = io.BytesIO()
                metadata = {"Date": None} if kind == "svg" else PICTURE_MARK
                figure.savefig(buffer, format=kind, dpi=dpi, facecolor=theme.paper, metadata=metadata)
                files.append(buffer.getvalue())
            return files

    png, light = encoded(LIGHT, "png", "svg")
    return Picture(name, alt, caption, png, light, *encoded(DARK, "svg"))
