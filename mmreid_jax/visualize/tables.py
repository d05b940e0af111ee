"""Score tables for the console, for markdown files and for the report: one set of rules for rounding and for "best"."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

Score = float | tuple[float, float] | None
"""A score in [0, 1]; a pair is mean and standard deviation over trials or seeds; None is a score that was not taken."""

COLUMNS = ("mAP", "R1", "R5", "R10", "mINP")
"""The columns of a score table unless told otherwise."""


@dataclasses.dataclass(frozen=True)
class ScoreTable:
    """Scores of several runs, protocols or moments of one run.

    Attributes:
      rows: name of the row (``untrained``, ``trained``, ``after test-time training``, ``without rgb``) -> score name ->
        score.
      title: heading, or empty.
      note: a sentence printed under the table, such as how the row was chosen, or empty.
      columns: score names in order; those that no row has are left out.
      mark_best: whether the best value of each column stands out; False where the rows are not rivals.
    """

    rows: Mapping[str, Mapping[str, Score]]
    title: str = ""
    note: str = ""
    columns: tuple[str, ...] = COLUMNS
    mark_best: bool = True

    @property
    def columns_with_scores(self) -> tuple[str, ...]:
        """The columns that at least one row has a score for."""
        return tuple(name for name in self.columns if any(row.get(name) is not None for row in self.rows.values()))

    def best(self, column: str) -> set[str]:
        """Names of the rows with the highest score of a column after rounding; empty where nothing is to be marked."""
        known = {name: _mean(row.get(column)) for name, row in self.rows.items() if _known(row.get(column))}
        printed = {name: float(f"{100 * mean:.1f}") for name, mean in known.items()}
        if not self.mark_best or len(printed) < 2:
            return set()
        return {name for name, value in printed.items() if value == max(printed.values())}


def _mean(score: Score) -> float:
    return math.nan if score is None else score[0] if isinstance(score, tuple) else score


def _known(score: Score) -> bool:
    return not math.isnan(_mean(score))


def percent(score: Score) -> str:
    """A score in per cent with one decimal, ``69.1`` or ``69.1 ± 0.4``; a dash where it was not taken or is NaN."""
    if not _known(score):
        return "–"  # noqa: RUF001 - an en dash is the usual sign for "no value"
    if isinstance(score, tuple):
        return f"{100 * score[0]:.1f} ± {100 * score[1]:.1f}"
    return f"{100 * _mean(score):.1f}"


def text_table(table: ScoreTable) -> str:
    """The table in plain text with aligned columns; the best value of each column carries a star."""
    columns = table.columns_with_scores
    best = {column: table.best(column) for column in columns}
    cells = [["", *columns]] + [
        [name, *(percent(row.get(column)) + (" *" if name in best[column] else "  ") for column in columns)]
        for name, row in table.rows.items()
    ]
    cells[0][1:] = [f"{column}  " for column in columns]
    widths = [max(len(line[position]) for line in cells) for position in range(len(columns) + 1)]
    lines = [
        "  ".join(
            [line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in cells
    ]
    rule = "-" * max(len(line.rstrip()) for line in lines)
    body = [lines[0].rstrip(), rule, *(line.rstrip() for line in lines[1:])]
    return "\n".join(([table.title] if table.title else []) + body + ([table.note] if table.note else []))
