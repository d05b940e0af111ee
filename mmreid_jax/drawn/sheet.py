"""One picture that shows some images of a data set: identities in rows, cameras and modalities in columns.

In a visible-infrared data set every column is one camera in one modality, the visible ones first.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmreid_jax.data import images, listing
from mmreid_jax.drawn.drawings import Drawing, DrawnSample
from mmreid_jax.errors import UserError
from mmreid_jax.owned import PICTURE_MARK
from mmreid_jax.paths import reason_of, whole

if TYPE_CHECKING:
    from PIL.Image import Image

_GAP, _MARGIN, _HEADER = 4, 74, 40
_PAPER, _INK, _EMPTY, _NOTE = (250, 250, 248), (30, 30, 34), (226, 226, 222), (255, 210, 60)


@dataclasses.dataclass(frozen=True)
class SheetSample:
    """A sample that may be shown.

    Attributes:
      identity: of whom it shows.
      modality: of a single image; "" where all modalities are shown side by side.
      seen_by: number of the camera, by which columns are ordered.
      place: the title of its column.
      shown: names of the modalities side by side.
      load: gives their images, uint8 [H, W, 3] of one size.
    """

    identity: int
    modality: str
    seen_by: int
    place: str
    shown: tuple[str, ...]
    load: Callable[[], Mapping[str, np.ndarray]]


def _choose(shots: Sequence[SheetSample], identities: int, cameras: int) -> list[list[SheetSample]]:
    """Rows of shots, one identity each, one shot a camera; identities that most cameras saw come first."""
    seen: dict[int, dict[tuple[str, int], list[SheetSample]]] = defaultdict(lambda: defaultdict(list))
    for shot in shots:
        seen[shot.identity][shot.modality, shot.seen_by].append(shot)
    order = sorted(seen, key=lambda identity: (-min(cameras, len(seen[identity])), identity))
    kinds = sorted({shot.modality for shot in shots}, key=lambda name: (name != "rgb", name))
    rows = []
    for identity in sorted(order[:identities]):
        row = []
        for kind in kinds:
            columns = sorted(key for key in seen[identity] if key[0] == kind)
            step = max(1, len(columns) // cameras)
            groups = [seen[identity][column] for column in columns[::step][:cameras]]
            row += [group[len(group) // 2] for group in groups]
        rows.append(row)
    return rows


def _load(drawing: Drawing, root: pathlib.Path, sample: DrawnSample) -> dict[str, np.ndarray]:
    shown: dict[str, np.ndarray] = {}
    for path, parts in drawing.paths(sample).items():
        pixels = images.decode(listing.read_file(root / path), str(root / path))
        shown.update(zip(parts, np.split(pixels, len(parts), axis=1), strict=True))
    return shown


def picture(shots: Sequence[SheetSample], *, size: tuple[int, int], identities: int = 6, cameras: int = 4) -> Image:
    """A picture with identities in rows, and for each of several cameras all modalities side by side.

    Args:
      shots: among which those to show are chosen.
      size: (height, width) of one modality.
      identities, cameras: how many to show at most; of a visible-infrared data set so many cameras of each modality.
    """
    from PIL import Image, ImageDraw, ImageFont

    rows = _choose(shots, identities, cameras)
    height, width = size
    columns = max(len(row) for row in rows)
    block = len(rows[0][0].shown) * width
    sheet = Image.new("RGB", (_MARGIN + columns * (block + 3 * _GAP), _HEADER + len(rows) * (height + _GAP)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    titles = [next(row[c].place for row in rows if c < len(row)) for c in range(columns)]
    for c in range(columns):
        left = _MARGIN + c * (block + 3 * _GAP)
        draw.text((left + 4, 4), titles[c], _INK, font)
        for m, name in enumerate(next(row[c].shown for row in rows if c < len(row))):
            draw.text((left + m * width + 4, 22), name, _INK, font)
    for r, row in enumerate(rows):
        top = _HEADER + r * (height + _GAP)
        draw.text((6, top + height // 2 - 14), f"identity\n{row[0].identity}", _INK, font)
        for c in range(columns):
            left = _MARGIN + c * (block + 3 * _GAP)
            if c >= len(row):
                draw.rectangle((left, top, left + block - 1, top + height - 1), _EMPTY)
                continue
            seen = row[c].load()
            strip = np.concatenate([seen[name] for name in row[c].shown], axis=1)
            sheet.paste(Image.fromarray(strip), (left, top))
            if row[c].place != titles[c]:
                draw.text((left + 4, top + 2), row[c].place, _NOTE, font)
    return sheet


def contact_sheet(
    drawing: Drawing,
    samples: list[DrawnSample],
    root: pathlib.Path,
    out_png: str | os.PathLike[str],
    *,
    size: tuple[int, int],
    identities: int = 6,
    cameras: int = 4,
) -> pathlib.Path:
    """Writes the `picture` of a drawn data set.

    Args:
      drawing: of the data set.
      samples: among which those to show are chosen.
      root: folder of the data set.
      out_png: the picture to write.
      size, identities, cameras: see `picture`.

    Raises:
      UserError: the picture cannot be written.
    """
    from PIL.PngImagePlugin import PngInfo

    shots = [
        SheetSample(
            sample.identity,
            sample.modality or "",
            sample.seen_by,
            f"camera {sample.camera}" if sample.view is None else f"view {sample.view}",
            (sample.modality,) if sample.modality else drawing.modalities,
            functools.partial(_load, drawing, root, sample),
        )
        for sample in samples
        if sample.identity > 0
    ]
    sheet = picture(shots, size=size, identities=identities, cameras=cameras)
    target, mark = pathlib.Path(out_png), PngInfo()
    for key, text in PICTURE_MARK.items():
        mark.add_text(key, text)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole(target, f".part{target.suffix}") as part:
            sheet.save(part, pnginfo=mark)
    except (OSError, ValueError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        raise UserError(f"cannot write the contact sheet {target} ({reason}); name another file") from error
    return target
