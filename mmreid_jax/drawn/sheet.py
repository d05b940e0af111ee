"""One picture that shows what was drawn: identities in rows, cameras and modalities in columns.

In a visible-infrared data set every column is one camera in one modality, the visible ones first.
"""

from __future__ import annotations

import os
import pathlib
from collections import defaultdict

import numpy as np

from mmreid_jax.data import images, listing
from mmreid_jax.drawn.drawings import Drawing, DrawnSample
from mmreid_jax.errors import UserError
from mmreid_jax.owned import PICTURE_MARK
from mmreid_jax.paths import reason_of, whole

_GAP, _MARGIN, _HEADER = 4, 74, 40
_PAPER, _INK, _EMPTY, _NOTE = (250, 250, 248), (30, 30, 34), (226, 226, 222), (255, 210, 60)


def _choose(samples: list[DrawnSample], identities: int, cameras: int) -> list[list[DrawnSample]]:
    """Rows of samples, one identity each, one sample a camera; identities that most cameras saw come first."""
    samples_of: dict[int, dict[tuple[str, int], list[DrawnSample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        if sample.identity > 0:
            samples_of[sample.identity][_modality(sample), sample.seen_by].append(sample)
    order = sorted(samples_of, key=lambda identity: (-min(cameras, len(samples_of[identity])), identity))
    kinds = sorted({_modality(sample) for sample in samples}, key=lambda name: (name != "rgb", name))
    rows = []
    for identity in sorted(order[:identities]):
        row = []
        for kind in kinds:
            columns = sorted(key for key in samples_of[identity] if key[0] == kind)
            step = max(1, len(columns) // cameras)
            groups = [samples_of[identity][column] for column in columns[::step][:cameras]]
            row += [group[len(group) // 2] for group in groups]
        rows.append(row)
    return rows


def _modality(sample: DrawnSample) -> str:
    return sample.modality or ""


def _modalities(drawing: Drawing, sample: DrawnSample) -> tuple[str, ...]:
    return (sample.modality,) if sample.modality else drawing.modalities


def _place(sample: DrawnSample) -> str:
    return f"camera {sample.camera}" if sample.view is None else f"view {sample.view}"


def _load(drawing: Drawing, root: pathlib.Path, sample: DrawnSample) -> dict[str, np.ndarray]:
    loaded: dict[str, np.ndarray] = {}
    for path, parts in drawing.paths(sample).items():
        whole = images.decode(listing.read_file(root / path), str(root / path))
        loaded.update(zip(parts, np.split(whole, len(parts), axis=1), strict=True))
    return loaded


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
    """Writes a picture with identities in rows, and for each of several cameras all modalities side by side.

    Args:
      drawing: of the data set.
      samples: among which those to show are chosen.
      root: folder of the data set.
      out_png: the picture to write.
      size: (height, width) of one modality.
      identities, cameras: how many to show at most; of a visible-infrared data set so many cameras of each modality.

    Raises:
      UserError: the picture cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont
    from PIL.PngImagePlugin import PngInfo

    rows = _choose(samples, identities, cameras)
    height, width = size
    columns = max(len(row) for row in rows)
    block = len(_modalities(drawing, rows[0][0])) * width
    sheet = Image.new("RGB", (_MARGIN + columns * (block + 3 * _GAP), _HEADER + len(rows) * (height + _GAP)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    titles = [next(_place(row[c]) for row in rows if c < len(row)) for c in range(columns)]
    for c in range(columns):
        left = _MARGIN + c * (block + 3 * _GAP)
        draw.text((left + 4, 4), titles[c], _INK, font)
        for m, name in enumerate(next(_modalities(drawing, row[c]) for row in rows if c < len(row))):
            draw.text((left + m * width + 4, 22), name, _INK, font)
    for r, row in enumerate(rows):
        top = _HEADER + r * (height + _GAP)
        draw.text((6, top + height // 2 - 14), f"identity\n{row[0].identity}", _INK, font)
        for c in range(columns):
            left = _MARGIN + c * (block + 3 * _GAP)
            if c >= len(row):
                draw.rectangle((left, top, left + block - 1, top + height - 1), _EMPTY)
                continue
            loaded = _load(drawing, root, row[c])
            strip = np.concatenate([loaded[name] for name in _modalities(drawing, row[c])], axis=1)
            sheet.paste(Image.fromarray(strip), (left, top))
            if _place(row[c]) != titles[c]:
                draw.text((left + 4, top + 2), _place(row[c]), _NOTE, font)
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
