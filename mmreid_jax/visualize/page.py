"""Pieces of a self-contained HTML page: skeleton, pictures, thumbnails, ranked lists and score tables.

A page is one file: its style and its few lines of script are inline, its images are embedded, and its content-security
policy forbids every request, so it opens from disk without a server and never reaches for a network. Text from outside
(titles, file names, config values) is escaped wherever it enters.
"""

from __future__ import annotations

import base64
import dataclasses
import html
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mmreid_jax.owned import PAGE_MARK
from mmreid_jax.visualize.attention import MapExample
from mmreid_jax.visualize.images import cell_size, encode_jpeg, fit
from mmreid_jax.visualize.page_assets import SCRIPT, STYLE
from mmreid_jax.visualize.ranked_lists import (
    Match,
    RankedList,
    RankedSample,
    match_lines,
    modality_rows,
    query_lines,
    row_names,
    score_line,
)
from mmreid_jax.visualize.style import DARK, LIGHT, RIGHT, UNKNOWN, WRONG, Picture
from mmreid_jax.visualize.tables import ScoreTable, percent


@dataclasses.dataclass(frozen=True)
class Thumbnails:
    """How photographs are embedded.

    Attributes:
      area: height x width in pixels.
      longest: bound on the longer side in pixels.
      quality: JPEG quality, 1 to 95.
      keep: JPEG file -> its address; by default the address carries the content itself.
    """

    area: int
    longest: int
    quality: int
    keep: Callable[[bytes], str] = lambda content: data_uri("image/jpeg", content)


SIZES = (
    Thumbnails(192 * 96, 224, 86),
    Thumbnails(144 * 72, 176, 80),
    Thumbnails(112 * 56, 144, 74),
    Thumbnails(80 * 40, 104, 65),
)
"""From the finest to the smallest; a page takes the first with which it stays within its bound."""


@dataclasses.dataclass(frozen=True)
class PageSection:
    """A part of a page with its own heading and entry in the table of contents; `body` is HTML."""

    heading: str
    body: str


def esc(text: object) -> str:
    """Text made safe to stand in HTML, in an attribute as well, and to be written as UTF-8."""
    return html.escape(str(text).encode(errors="backslashreplace").decode(), quote=True)


def data_uri(kind: str, content: bytes) -> str:
    """File content as an address that carries the content itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def paragraphs(text: str) -> str:
    """Plain text as HTML paragraphs, split at empty lines."""
    return "".join(f"<p>{esc(part.strip())}</p>" for part in text.split("\n\n") if part.strip())


def facts(values: Mapping[str, object]) -> str:
    """Names and values as a table of two columns."""
    rows = "".join(f"<tr><th scope='row'>{esc(key)}</th><td>{esc(value)}</td></tr>" for key, value in values.items())
    return f"<table class='facts'><tbody>{rows}</tbody></table>"


def picture_html(picture: Picture) -> str:
    """A figure with its caption; a click enlarges it, and charts follow the light or dark page."""
    if picture.svg_light is None:
        image = _image("image/png", picture.png, picture.alt)
    else:
        image = _image("image/svg+xml", picture.svg_light, picture.alt)
        if picture.svg_dark is not None:
            dark = data_uri("image/svg+xml", picture.svg_dark)
            image = f"<picture><source media='(prefers-color-scheme: dark)' srcset='{dark}'>{image}</picture>"
    return f"<figure class='chart'>{_zoom(image, picture.caption or picture.alt)}{_caption(picture.caption)}</figure>"


def _image(kind: str, content: bytes, alt: str) -> str:
    return _image_at(data_uri(kind, content), alt)


def _image_at(address: str, alt: str) -> str:
    return f"<img src='{address}' alt='{esc(alt)}' loading='lazy'>"


def _zoom(image: str, label: str) -> str:
    """A button around an image that shows it large; `label` is printed under the large one."""
    return f"<button type='button' class='zoom' data-label='{esc(label)}' title='Enlarge'>{image}</button>"


def _caption(text: str) -> str:
    return f"<figcaption>{esc(text)}</figcaption>" if text else ""


def _thumbnail(image: np.ndarray, cell: tuple[int, int], size: Thumbnails, alt: str) -> str:
    return _zoom(_image_at(size.keep(encode_jpeg(fit(image, *cell), size.quality)), alt), alt)


def _mark(word: str, path: str) -> str:
    return f"<svg class='mark {word}' viewBox='0 0 16 16' role='img' aria-label='{word}'><path d='{path}'/></svg>"


_MARKS = {True: _mark("right", "M3 8.5l3.2 3.2L13 5"), False: _mark("wrong", "M4 4l8 8M12 4l-8 8"), None: ""}
_FRAMES = {True: "right", False: "wrong", None: "unknown"}
LEGEND = (
    f"<ul class='legend'><li>{_MARKS[True]} same identity as the query</li><li>{_MARKS[False]} another identity</li>"
    "<li>Under each sample: rank, identity, camera (counted from 1), distance. A click enlarges.</li></ul>"
)
"""What the frames and the lines under the samples of a ranked list mean."""


def ranked_list_html(item: RankedList, size: Thumbnails) -> str:
    """A ranked list as thumbnails and text.

    Args:
      item: the list.
      size: how thumbnails are embedded.
    """
    cell = cell_size(list(item.query.images.values()), size.area, size.longest)
    query_rows, gallery_rows = modality_rows(item)
    heading = item.query.file or f"query {item.row}"
    what = ", ".join(query_lines(item))
    options = (size, cell)
    query = _sample_html(item.query, query_rows, options, query_lines(item), what, "query")
    columns: list[str] = []
    divided = False
    for match in item.matches:
        if match.beyond and not divided:
            columns.append("<li class='limit' aria-label='threshold'><span>beyond the threshold</span></li>")
            divided = True
        frame = _FRAMES[match.right] + (" beyond" if match.beyond else "")
        words, mark = _in_words(match), _MARKS[match.right]
        column = _sample_html(match.sample, gallery_rows, options, match_lines(match), words, frame, mark)
        columns.append(f"<li>{column}</li>")
    labels = "".join(f"<span>{esc(name)}</span>" for name in row_names(item))
    score = f"<span class='score'>{esc(score_line(item))}</span>" if score_line(item) else ""
    comment = f"<p class='comment'>{esc(item.comment)}</p>" if item.comment else ""
    looks = f"--ratio:{cell[1] / cell[0]:.4f};--shown:{_height_on_page(cell)}px"
    strip = "strip lying" if cell[1] > cell[0] else "strip"
    return (
        f"<article class='ranked'><h3>{esc(heading)} {score}</h3>{comment}"
        f"<div class='{strip}' style='{looks}' tabindex='0'><div class='names' aria-hidden='true'>{labels}</div>"
        f"{query}<ol>{''.join(columns)}</ol></div></article>"
    )


def _height_on_page(cell: tuple[int, int]) -> int:
    """Height on the page of a thumbnail, in CSS pixels: upright and wide ones take about the same room."""
    return round((124 * 62 * cell[0] / cell[1]) ** 0.5)


def _in_words(match: Match) -> str:
    """A match in words, for alternative texts and enlarged thumbnails."""
    verdict = {True: ", right", False: ", wrong", None: ""}[match.right]
    rank, *labels = match_lines(match)
    labels[-1] = f"distance {labels[-1]}"
    return ", ".join([f"rank {rank.removeprefix('#')}{verdict}", *labels])


def _sample_html(
    sample: RankedSample,
    rows: Sequence[str],
    thumbnails: tuple[Thumbnails, tuple[int, int]],
    lines: Sequence[str],
    words: str,
    frame: str,
    mark: str = "",
) -> str:
    """A column of a ranked list: the sample in each modality inside one frame, with lines of text under it.

    Args:
      sample: what is shown.
      rows: the modality in each row.
      thumbnails: how they are embedded, and their height and width.
      lines: text under the frame.
      words: the sample in words.
      frame: class of the style sheet that colours the frame.
      mark: HTML of the tick or cross.
    """
    size, cell = thumbnails
    stack = "".join(
        _thumbnail(sample.images[name], cell, size, f"{words}, {name}{f', {sample.file}' if sample.file else ''}")
        if name in sample.images
        else f"<span class='absent'>{'absent' if name else ''}</span>"
        for name in rows
    )
    text = f"<b>{esc(lines[0])}</b>" + "".join(f"<span>{esc(line)}</span>" for line in lines[1:])
    title = f" title='{esc(sample.file)}'" if sample.file else ""
    return (
        f"<div class='sample {frame}'{title}><div class='frame'>{mark}{stack}</div>"
        f"<div class='lines'>{text}</div></div>"
    )


def maps_html(examples: Sequence[MapExample], size: Thumbnails) -> str:
    """Samples in rows, modalities in columns, the image beside what is laid over it."""
    blocks = []
    for example in examples:
        of_modality = example.panels()
        images = [panels[0] for panels in of_modality.values() if panels[0] is not None]
        cell = cell_size(images, 2 * size.area, 2 * size.longest)
        looks = f"--ratio:{cell[1] / cell[0]:.4f};--shown:{round(1.6 * _height_on_page(cell))}px;--gap:{example.gap}px"
        figures = []
        for name, panels in of_modality.items():
            rows = "".join(
                _thumbnail(image, cell, size, f"{example.label}, {name}{f', {word}' if place else ''}")
                for place, (image, word) in enumerate(zip(panels, example.words, strict=True))
                if image is not None
            )
            figures.append(f"<figure><div>{rows}</div><figcaption>{esc(name.upper())}</figcaption></figure>")
        label = f"<h3>{esc(example.label)}</h3>" if example.label else ""
        blocks.append(
            f"<article class='attention' style='{looks}'>{label}<div class='row'>{''.join(figures)}</div></article>"
        )
    return f"<div class='maps'>{''.join(blocks)}</div>"


def score_table_html(table: ScoreTable) -> str:
    """A score table in per cent; the best value of each column is bold."""
    best = {column: table.best(column) for column in table.columns_with_scores}
    head = "".join(
        f"<th scope='col'><button type='button' class='sort' title='Sort'>{esc(column)}</button></th>"
        for column in table.columns_with_scores
    )
    body = "".join(
        f"<tr><th scope='row'>{esc(name)}</th>"
        + "".join(
            f"<td class='best'>{percent(row.get(key))}</td>"
            if name in best[key]
            else f"<td>{percent(row.get(key))}</td>"
            for key in table.columns_with_scores
        )
        + "</tr>"
        for name, row in table.rows.items()
    )
    caption = f"<caption>{esc(table.title)}</caption>" if table.title else ""
    note = f"<p class='note'>{esc(table.note)}</p>" if table.note else ""
    return (
        f"<div class='wide'><table class='scores'>{caption}<thead><tr><td></td>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>{note}"
    )


def page(title: str, sections: Sequence[PageSection], *, lead: str = "", footer: str = "") -> str:
    """A whole page.

    Args:
      title: its heading and the window's title.
      sections: its parts, in order; the table of contents lists them.
      lead: HTML between the heading and the first part.
      footer: text at the foot.
    """
    entries = "".join(
        f"<li><a href='#part-{i}'>{esc(part.heading)}</a></li>" for i, part in enumerate(sections, start=1)
    )
    contents = f"<nav aria-label='Contents'><p>Contents</p><ol>{entries}</ol></nav>" if len(sections) > 1 else ""
    body = "".join(
        f"<section id='part-{i}' aria-labelledby='head-{i}'>"
        f"<h2 id='head-{i}'>{esc(part.heading)}</h2>{part.body}</section>"
        for i, part in enumerate(sections, start=1)
    )
    foot = f"<footer>{esc(footer)}</footer>" if footer else ""
    # Images beside the page, for pages that are opened from a disk or a server.
    policy = "default-src 'none'; img-src data: 'self' file:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"{PAGE_MARK}\n<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        "<meta name='color-scheme' content='light dark'>\n"
        f"<title>{esc(title)}</title>\n<style>{_colors()}{STYLE}</style>\n</head>\n"
        f"<body class='{'contents' if contents else 'plain'}'>\n{contents}\n<main>\n"
        f"<header><h1>{esc(title)}</h1>{lead}</header>\n{body}\n{foot}\n</main>\n"
        "<dialog aria-label='Enlarged picture'><div></div><p></p></dialog>\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _colors() -> str:
    """The figure colours as CSS variables, so that page and figures agree."""
    frames = "".join(
        f"--{name}:rgb({','.join(map(str, color))});"
        for name, color in (("right", RIGHT), ("wrong", WRONG), ("unknown", UNKNOWN))
    )
    light, dark = (
        f"--paper:{theme.paper};--ink:{theme.ink};--muted:{theme.muted};--line:{theme.grid};--accent:{theme.series[0]};"
        for theme in (LIGHT, DARK)
    )
    return (
        f":root{{{frames}{light}--ground:#f5f7f9}}@media (prefers-color-scheme:dark){{:root{{{dark}--ground:#12171c}}}}"
    )
