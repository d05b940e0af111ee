"""The report of a run: one HTML file that opens from disk, and every picture beside it as a PNG."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mmreid_jax.errors import UserError
from mmreid_jax.owned import check_page
from mmreid_jax.visualize import page
from mmreid_jax.visualize.activation import ActivationExample, activation_picture
from mmreid_jax.visualize.attention import AttentionExample, MapExample, attention_picture
from mmreid_jax.visualize.ranked_lists import RankedList, ranked_lists_picture, with_failure_sentences
from mmreid_jax.visualize.style import Picture, write_bytes
from mmreid_jax.visualize.tables import Score, ScoreTable, percent

LARGEST = 6_000_000
"""Bytes that the HTML file stays below, by embedding smaller photographs if it must."""


@dataclasses.dataclass(frozen=True)
class Extra:
    """A part of the report that has no field of its own.

    Attributes:
      heading: its heading.
      text: plain text; empty lines divide paragraphs.
      pictures: figures under the text.
    """

    heading: str
    text: str = ""
    pictures: Sequence[Picture] = ()


@dataclasses.dataclass(frozen=True)
class HtmlReport:
    """What a report says. A part that is not given is left out, with its heading.

    Attributes:
      title: such as ``HTT on rgbnt201``.
      summary: one or two sentences under the title.
      headline: the scores shown large at the top: name -> score in [0, 1], or (mean, deviation).
      command: the command that reproduces the run.
      config: settings of the run, name -> value.
      protocol: how queries and gallery were made and what was ignored, in plain text.
      skipped: why queries were skipped (`mmreid_jax.visualize.selection.skipped_sentence`).
      scores: tables of scores.
      curves: training curves, CMC, bars and the like.
      ranked_lists: a fair sample of queries.
      failures: the hardest failures; a list without a comment gets a sentence that says what went wrong.
      successes: typical successes.
      attention: samples with their attention maps.
      attention_note: what kind of map it is, in a sentence.
      activation: samples with their activation maps.
      activation_note: likewise.
      calibration: sentences about distance thresholds (`mmreid_jax.visualize.calibration.Calibration.sentences`).
      calibration_picture: its figure.
      dataset: facts of the data set, name -> value.
      extras: further parts, after the others.
      footer: version, date, hardware.
    """

    title: str
    summary: str = ""
    headline: Mapping[str, Score] = dataclasses.field(default_factory=dict)
    command: str = ""
    config: Mapping[str, object] = dataclasses.field(default_factory=dict)
    protocol: str = ""
    skipped: str = ""
    scores: Sequence[ScoreTable] = ()
    curves: Sequence[Picture] = ()
    ranked_lists: Sequence[RankedList] = ()
    failures: Sequence[RankedList] = ()
    successes: Sequence[RankedList] = ()
    attention: Sequence[AttentionExample] = ()
    attention_note: str = ""
    activation: Sequence[ActivationExample] = ()
    activation_note: str = ""
    calibration: Sequence[str] = ()
    calibration_picture: Picture | None = None
    dataset: Mapping[str, object] = dataclasses.field(default_factory=dict)
    extras: Sequence[Extra] = ()
    footer: str = ""


def check_target(folder: Path) -> None:
    """Says whether a report may be written to a folder, before there is anything to report.

    Raises:
      UserError: a report or a picture there is not this program's.
    """
    check_page(folder / "report.html", "*.png")


def write_report(path: str | Path, report: HtmlReport, *, largest: int = LARGEST) -> Path:
    """Writes the report as one HTML file, and its pictures as PNG files in the folder ``figures`` beside it.

    Args:
      path: the HTML file, or an existing folder, in which it is then called ``report.html``.
      report: what it says.
      largest: bound on the size of the HTML file in bytes; photographs are embedded smaller until it fits.

    Returns:
      The path of the HTML file.

    Raises:
      UserError: a file cannot be written, an image to draw is not uint8 [H, W, 3], two pictures have the same name, or
        the page does not fit the bound even with the smallest photographs.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "report.html"
    report = dataclasses.replace(report, failures=_explained(report.failures))
    figures = pictures(report)
    names = [figure.name for figure in figures]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two pictures of the report are called {repeated[0]!r}; give each figure its own name.")
    for figure in figures:
        figure.write(file.parent / "figures")
    write_bytes(file, fitting(lambda size: render(report, size), largest, what=str(file)))
    return file


def fitting(render: Callable[[page.Thumbnails], str], largest: int, what: str) -> bytes:
    """The page with the finest photographs that keep it within `largest` bytes.

    Raises:
      UserError: it does not fit even with the smallest.
    """
    for size in page.SIZES:
        content = render(size).encode("utf-8")
        if len(content) <= largest:
            return content
    raise UserError(
        f"{what} would take {len(content) / 1e6:.1f} MB, more than the bound of {largest / 1e6:.1f} MB; "
        "show fewer ranked lists or raise the bound."
    )


def _explained(lists: Sequence[RankedList]) -> list[RankedList]:
    return [item if item.comment else with_failure_sentences([item])[0] for item in lists]


_LISTS = {
    "ranked_lists": "Ranked lists",
    "failures": "Hardest failures",
    "successes": "Typical successes",
}
_INTRODUCTIONS = {
    "ranked_lists": "Queries chosen at random over the whole query set, each with its best-ranked gallery samples.",
    "failures": "The queries whose first right match comes latest.",
    "successes": "Queries with a right first match and an average precision near the middle of such queries.",
}


def pictures(report: HtmlReport) -> list[Picture]:
    """Every picture of the report, in order: its charts, and its ranked lists and maps drawn as pictures."""
    every_picture = list(report.curves)
    for part, heading in _LISTS.items():
        if lists := getattr(report, part):
            every_picture.append(ranked_lists_picture(lists, name=part, title=heading, caption=_INTRODUCTIONS[part]))
    if report.attention:
        every_picture.append(attention_picture(report.attention, title="Attention", caption=report.attention_note))
    if report.activation:
        title, caption = "Activation maps", report.activation_note
        every_picture.append(activation_picture(report.activation, title=title, caption=caption))
    if report.calibration_picture:
        every_picture.append(report.calibration_picture)
    return every_picture + [picture for extra in report.extras for picture in extra.pictures]


def render(report: HtmlReport, size: page.Thumbnails) -> str:
    """The report as HTML text, with photographs of the given size."""
    parts = (
        ("Scores", "".join(map(page.score_table_html, report.scores))),
        ("Protocol", page.paragraphs(report.protocol) + page.paragraphs(report.skipped)),
        ("Curves", _charts(report.curves)),
        *((heading, _lists(report, part, size)) for part, heading in _LISTS.items()),
        ("Attention", _maps(report.attention, report.attention_note, size)),
        ("Activation maps", _maps(report.activation, report.activation_note, size)),
        ("Distance threshold", _calibration(report)),
        *((extra.heading, page.paragraphs(extra.text) + _charts(extra.pictures)) for extra in report.extras),
        ("Data set", page.facts(report.dataset) if report.dataset else ""),
        ("Settings", _settings(report)),
    )
    sections = [page.PageSection(heading, body) for heading, body in parts if body]
    return page.page(report.title, sections, lead=_lead(report), footer=report.footer)


def _lead(report: HtmlReport) -> str:
    tiles = "".join(
        f"<li><b>{percent(value)}<small>%</small></b><span>{page.esc(name)}</span></li>"
        for name, value in report.headline.items()
    )
    return page.paragraphs(report.summary) + (f"<ul class='tiles'>{tiles}</ul>" if tiles else "")


def _charts(figures: Sequence[Picture]) -> str:
    return f"<div class='charts'>{''.join(map(page.picture_html, figures))}</div>" if figures else ""


def _lists(report: HtmlReport, part: str, size: page.Thumbnails) -> str:
    lists: Sequence[RankedList] = getattr(report, part)
    if not lists:
        return ""
    return f"<p class='note'>{_INTRODUCTIONS[part]}</p>{page.LEGEND}" + "".join(
        page.ranked_list_html(item, size) for item in lists
    )


def _maps(examples: Sequence[MapExample], note: str, size: page.Thumbnails) -> str:
    return page.paragraphs(note) + page.maps_html(examples, size) if examples else ""


def _calibration(report: HtmlReport) -> str:
    text = "".join(map(page.paragraphs, report.calibration))
    return text + (_charts([report.calibration_picture]) if report.calibration_picture else "")


def _settings(report: HtmlReport) -> str:
    command = f"<pre>{page.esc(report.command)}</pre>" if report.command else ""
    config = f"<div class='columns'>{page.facts(report.config)}</div>" if report.config else ""
    return command + config
