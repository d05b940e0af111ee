"""Ranked lists: a query in a black frame at the left, in every modality, its best-ranked gallery samples at the right,
framed green or red.

The frame of a right match also carries a tick and that of a wrong one a cross, so nothing depends on telling green from
red. `ranked_lists` collects what is shown; `ranked_lists_picture` draws it as one PNG. The HTML pages
(`mmreid_jax.visualize.report`, `mmreid_jax.visualize.search_page`) show the same lists as thumbnails and text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.visualize import style
from mmreid_jax.visualize.canvas import Canvas
from mmreid_jax.visualize.images import as_uint8, cell_size, fit
from mmreid_jax.visualize.selection import Ignore, LabelColumns, check_distances, ignored, ranked

Images = Callable[[str, int], Mapping[str, np.ndarray]]
"""Image getter: (``query`` or ``gallery``, row of its table) -> modality -> uint8 [H, W, 3]."""


@dataclasses.dataclass(frozen=True)
class RankedSample:
    """One sample as shown in a ranked list.

    Attributes:
      images: modality -> uint8 [H, W, 3].
      identity, camera: its labels, or None where they are not known; cameras are counted from 0 here and printed
        counted from 1, as most data sets do in their file names.
      file: its file name, or empty.
    """

    images: Mapping[str, np.ndarray]
    identity: int | None = None
    camera: int | None = None
    file: str = ""


@dataclasses.dataclass(frozen=True)
class Match:
    """One gallery sample at its place in a ranked list.

    Attributes:
      sample: the gallery sample.
      rank: place in the list without ignored samples, counted from 1.
      distance: distance to the query.
      right: whether it has the query's identity; None where identities are not known.
      beyond: whether its distance is beyond the threshold that the user chose, so that it does not count as a match.
    """

    sample: RankedSample
    rank: int
    distance: float
    right: bool | None = None
    beyond: bool = False


@dataclasses.dataclass(frozen=True)
class RankedList:
    """A query and its best-ranked matches.

    Attributes:
      query: the query.
      matches: best first.
      row: row of the query in its table.
      first_hit: rank of the first right match; 0 where there is none or identities are not known.
      average_precision: of this query, in [0, 1]; None where it is not defined.
      right: how many gallery samples have the query's identity and count; None where identities are not known.
      gallery_size: how many gallery samples are ranked.
      comment: a sentence to print with the list, or empty.
    """

    query: RankedSample
    matches: tuple[Match, ...]
    row: int = 0
    first_hit: int = 0
    average_precision: float | None = None
    right: int | None = None
    gallery_size: int = 0
    comment: str = ""


def ranked_lists(
    distances: np.ndarray,
    query: LabelColumns,
    gallery: LabelColumns,
    images: Images,
    rows: Sequence[int] | np.ndarray,
    ignore: Ignore | None = None,
    top: int = 10,
) -> list[RankedList]:
    """Collects labels and images of the `top` best-ranked matches of some queries.

    Args:
      distances: float [Q, G].
      query, gallery: labels of the rows and columns; a `Records` table is one, and its column `file` is shown where
        present.
      images: image getter, called only for the samples shown.
      rows: the queries to show.
      ignore: which gallery samples the protocol ignores; None ignores nothing.
      top: how many matches to show.

    Raises:
      UserError: shapes do not agree, or an image is not uint8 [H, W, 3].
    """
    gallery_size = len(gallery.identity)
    check_distances(distances, len(query.identity), gallery_size)
    lists = []
    for row in (int(row) for row in rows):
        order = ranked(distances[row], ignored(ignore, row, gallery_size))
        same = np.asarray(gallery.identity)[order] == query.identity[row]
        hits = np.flatnonzero(same) + 1
        matches = tuple(
            Match(_sample("gallery", int(index), gallery, images), rank, float(distances[row, index]), bool(right))
            for rank, (index, right) in enumerate(zip(order[:top], same[:top], strict=True), start=1)
        )
        lists.append(
            RankedList(
                query=_sample("query", row, query, images),
                matches=matches,
                row=row,
                first_hit=int(hits[0]) if len(hits) else 0,
                average_precision=float(np.mean(np.arange(1, len(hits) + 1) / hits)) if len(hits) else None,
                right=len(hits),
                gallery_size=len(order),
            )
        )
    return lists


def _sample(side: str, index: int, labels: LabelColumns, images: Images) -> RankedSample:
    files = getattr(labels, "file", None)
    return RankedSample(
        images={name: as_uint8(image, f"{side} sample {index}, {name}") for name, image in images(side, index).items()},
        identity=int(labels.identity[index]),
        camera=int(labels.camera[index]),
        file=str(files[index]) if files is not None else "",
    )


def with_failure_sentences(lists: Sequence[RankedList]) -> list[RankedList]:
    """The lists with a sentence each that says what went wrong, behind what their comments say already."""
    return [dataclasses.replace(item, comment=f"{item.comment} {failure_sentence(item)}".strip()) for item in lists]


def failure_sentence(item: RankedList) -> str:
    """What went wrong with a query: where its first right match stands and who stands before it."""
    if not item.first_hit:
        return "The gallery holds no right match that counts for this query."
    before = [match.sample.identity for match in item.matches if match.right is False and match.rank < item.first_hit]
    if not before:
        return "The best-ranked match is right."
    counted = "The only right match" if item.right == 1 else f"The first of {item.right} right matches"
    names, counts = np.unique(np.array(before), return_counts=True)
    chief = int(names[np.argmax(counts)])
    if len(before) == 1:
        rivals = f"a sample of identity {chief} stands before it"
    elif len(names) == 1:
        rivals = f"every sample shown before it is of identity {chief}"
    elif counts.max() > 1:
        rivals = (
            f"of the {len(before)} wrong samples shown before it, {counts.max()} are of identity {chief} "
            f"and the rest of {len(names) - 1} other{'s' if len(names) > 2 else ''}"
        )
    else:
        rivals = f"the {len(before)} wrong samples shown before it are of {len(names)} different identities"
    return f"{counted} does not come before rank {item.first_hit}: {rivals}."


def modality_rows(item: RankedList) -> tuple[list[str], list[str]]:
    """Which modality stands in each row of a list, for the query and for the matches; both have the same length.

    Where the two sides share a modality, rows are the modalities of both, aligned by name (an absent one leaves a gap).
    Where they share none, as in infrared-to-visible search, rows pair the first with the first.
    """
    query = list(item.query.images)
    gallery = list(dict.fromkeys(name for match in item.matches for name in match.sample.images))
    if not gallery or set(query) & set(gallery):
        full, other = (query, gallery) if len(query) >= len(gallery) else (gallery, query)
        names = full + [name for name in other if name not in full]
        return names, names
    rows = max(len(query), len(gallery))
    return query + [""] * (rows - len(query)), gallery + [""] * (rows - len(gallery))


def row_names(item: RankedList) -> list[str]:
    """What is printed beside each row of a list: ``RGB``, or ``IR → RGB`` where query and matches differ."""
    return [
        " → ".join(dict.fromkeys(name.upper() for name in pair if name))
        for pair in zip(*modality_rows(item), strict=True)
    ]


def query_lines(item: RankedList) -> list[str]:
    """The lines of text under the query."""
    return ["query", *_label_lines(item.query)]


def match_lines(match: Match) -> list[str]:
    """The lines of text under a match: rank, labels (its file's name where it has none), distance."""
    labels = _label_lines(match.sample) or [PurePath(match.sample.file.replace("\\", "/")).stem]
    return [f"#{match.rank}", *filter(None, labels), f"{match.distance:z.3f}"]


def _label_lines(sample: RankedSample) -> list[str]:
    lines = [] if sample.identity is None else [f"id {sample.identity}"]
    return lines if sample.camera is None else [*lines, f"cam {sample.camera + 1}"]


def score_line(item: RankedList) -> str:
    """Average precision and first right rank of the query in a short phrase; empty where identities are not known."""
    if item.right is None:
        return ""
    if item.average_precision is None:
        return "no right match in the gallery"
    return (
        f"AP {100 * item.average_precision:.1f} % · first right match at rank {item.first_hit} of {item.gallery_size}"
    )


def frame_color(right: bool | None) -> tuple[int, int, int]:
    """The 8-bit RGB colour that frames a match."""
    return style.UNKNOWN if right is None else style.RIGHT if right else style.WRONG


_MARGIN, _GAP, _FRAME, _INNER = (
    24,
    14,
    5,
    3,
)  # pixels: page margin, between samples, frame thickness, between modalities
_LINE, _LABEL_COLUMN, _HEAD = 17, 30, 30  # pixels: a line of text, the column of modality names, a list's heading
_PICTURE_AREA, _PICTURE_LONGEST = 176 * 88, 192  # of a thumbnail


def ranked_lists_picture(
    lists: Sequence[RankedList], *, name: str = "ranked_lists", title: str = "", caption: str = ""
) -> style.Picture:
    """Draws ranked lists one under the other, as one PNG on light paper.

    Args:
      lists: at least one.
      name: stem of the file name.
      title: heading of the picture.
      caption: sentence printed under it on a page.

    Raises:
      UserError: there is no list to draw.
    """
    if not lists:
        raise UserError("there is no ranked list to draw; choose at least one query.")
    count = sum(len(item.matches) for item in lists)
    right = sum(bool(match.right) for item in lists for match in item.matches)
    known = any(match.right is not None for item in lists for match in item.matches)
    alt = f"Ranked lists of {len(lists)} queries with {count} matches" + (f", {right} of them right." if known else ".")
    return _layout(lists, title).picture(name=name, alt=alt, caption=caption)


def _layout(lists: Sequence[RankedList], title: str) -> Canvas:
    every = [image for item in lists for image in item.query.images.values()]
    cell = cell_size(every, _PICTURE_AREA, _PICTURE_LONGEST)
    columns = 1 + max(len(item.matches) for item in lists)
    step = cell[1] + 2 * _FRAME + _GAP
    width = max(2 * _MARGIN + _LABEL_COLUMN + columns * step + 2 * _GAP, 640)  # a heading needs some room
    heights = [_list_height(item, cell[0]) for item in lists]
    top = _MARGIN + (44 if title else 0)
    canvas = Canvas(top + sum(heights) + _MARGIN, width)
    if title:
        canvas.write(_MARGIN, _MARGIN, title, ha="left", fontsize=14, weight="bold")
    for position, (item, height) in enumerate(zip(lists, heights, strict=True)):
        if position:
            canvas.pixels[top - 1, _MARGIN:-_MARGIN] = 222
        _lay_list(canvas, item, top, cell, step)
        top += height
    return canvas


def _stack_height(item: RankedList, cell: int) -> int:
    rows = len(modality_rows(item)[0])
    return rows * cell + (rows - 1) * _INNER + 2 * _FRAME


def _list_height(item: RankedList, cell: int) -> int:
    lines = max([len(query_lines(item)), *(len(match_lines(match)) for match in item.matches)])
    return _HEAD + (_LINE if item.comment else 0) + _stack_height(item, cell) + lines * _LINE + 34


def _lay_list(canvas: Canvas, item: RankedList, top: int, cell: tuple[int, int], step: int) -> None:
    query_rows, gallery_rows = modality_rows(item)
    left = _MARGIN + _LABEL_COLUMN
    heading = " · ".join(part for part in (item.query.file or f"query {item.row}", score_line(item)) if part)
    longest = canvas.pixels.shape[1] // 8
    canvas.write(_MARGIN, top + 12, _shortened(heading, longest), ha="left", fontsize=9.5, weight="bold")
    top += _HEAD
    if item.comment:
        canvas.write(
            _MARGIN, top + 2, _shortened(item.comment, longest), ha="left", fontsize=9, color=style.LIGHT.muted
        )
        top += _LINE
    top += 6
    for row, names in enumerate(row_names(item)):
        middle = top + _FRAME + row * (cell[0] + _INNER) + cell[0] / 2
        looks = {"rotation": 90, "va": "center", "fontsize": 8.5, "color": style.LIGHT.muted}
        canvas.write(left - 16, middle, names, **looks)
    _lay_sample(canvas, item.query, query_rows, query_lines(item), (top, left), cell, style.QUERY)
    for position, match in enumerate(item.matches):
        corner = (top, left + 2 * _GAP + (position + 1) * step)
        _lay_sample(canvas, match.sample, gallery_rows, match_lines(match), corner, cell, frame_color(match.right))
        if match.right is not None:
            _lay_mark(canvas, corner, match.right)
        if match.beyond:
            right = corner[1] + cell[1] + 2 * _FRAME
            stack = canvas.pixels[top : top + _stack_height(item, cell[0]), corner[1] : right]
            stack[:] = 255 - (255 - stack) // 2


def _lay_sample(
    canvas: Canvas,
    sample: RankedSample,
    rows: Sequence[str],
    lines: Sequence[str],
    corner: tuple[int, int],
    cell: tuple[int, int],
    color: tuple[int, int, int],
) -> None:
    top, left = corner
    height = len(rows) * cell[0] + (len(rows) - 1) * _INNER + 2 * _FRAME
    width = cell[1] + 2 * _FRAME
    canvas.pixels[top : top + height, left : left + width] = color
    for row, name in enumerate(rows):
        y, x = top + _FRAME + row * (cell[0] + _INNER), left + _FRAME
        image = sample.images.get(name)
        canvas.pixels[y : y + cell[0], x : x + cell[1]] = 240 if image is None else fit(image, *cell)
        if image is None and name:
            canvas.write(x + cell[1] / 2, y + cell[0] / 2, "absent", va="center", fontsize=8, color=style.LIGHT.muted)
    for number, line in enumerate(lines):
        looks: dict[str, Any] = {"weight": "bold"} if number == 0 else {"color": style.LIGHT.muted}
        place = (left + width / 2, top + height + 6 + number * _LINE)
        canvas.write(*place, _shortened(line, (width + _GAP) // 8 - 1), fontsize=9, **looks)


def _shortened(text: str, longest: int) -> str:
    """The text in at most `longest` characters; the middle goes, because file names differ at their ends."""
    if len(text) <= longest:
        return text
    return f"{text[: (longest - 1) // 2]}…{text[-(longest // 2) :]}"


def _lay_mark(canvas: Canvas, corner: tuple[int, int], right: bool) -> None:
    """A badge with a tick or a cross at the top left of a sample's frame."""
    top, left = corner
    canvas.pixels[top : top + 22, left : left + 22] = frame_color(right)
    canvas.write(left + 11, top + 11, "✓" if right else "✗", va="center", fontsize=12, color="white", weight="bold")
