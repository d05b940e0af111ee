"""Mean and standard deviation over several runs.

``python -m mmreid_jax average WORKDIR WORKDIR ...``

For RegDB, whose result is the mean over ten splits with a model each, and for runs with several seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.paths import parse_json, path_of
from mmreid_jax.scoring.retrieval import COLUMNS
from mmreid_jax.training.logs import SCORES_FILE
from mmreid_jax.visualize import tables

Key = tuple[str, str]
WHAT: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "methods": lambda row: str(row.get("method", "")),
    # The splits of a data set are what is averaged over.
    "data sets": lambda row: str(row.get("dataset", "")).partition("/")[0],
    "comparisons": lambda row: str(row.get("comparison", "")),
    "origins": lambda row: {"True": "drawn", "False": "photographed"}.get(str(row.get("drawn")), ""),
}
"""What must be the same in all runs -> how a line of scores tells it; "" where one of an earlier version does not."""


def last_scores(workdir: Path) -> dict[Key, dict[str, Any]]:
    """The newest line of ``scores.jsonl`` for every (label, protocol) of a workdir.

    Raises:
      UserError: the folder has no scores, or a line of the file cannot be read.
    """
    path = workdir / SCORES_FILE
    if not path.is_file():
        raise UserError(f"{workdir} has no {SCORES_FILE}; give the --workdir of a finished training or evaluation")
    newest: dict[Key, dict[str, Any]] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            row = parse_json(line)
            newest[row["label"], row["protocol"]] = row
        except (ValueError, KeyError, TypeError):
            raise UserError(f"line {number} of {path} is not a line of scores; delete it, or evaluate again") from None
    return newest


def averages(runs: Sequence[dict[Key, dict[str, Any]]]) -> dict[Key, dict[str, tables.Score]]:
    """Mean and standard deviation (of the runs as a sample, N - 1) of every score that all runs have.

    Raises:
      UserError: the runs share no label and protocol, or are of different methods or data sets.
    """
    shared = [key for key in runs[0] if all(key in run for run in runs)]
    if not shared:
        raise UserError("the runs share no evaluation of one label and protocol; evaluate them in the same way")
    for key in shared:
        for what, of_row in WHAT.items():
            found = {of_row(run[key]) for run in runs if of_row(run[key])}
            if len(found) > 1:
                raise UserError(f"the runs are of different {what} ({', '.join(sorted(found))}); average those of one")
    return {key: {name: _spread([run[key][name] for run in runs]) for name in COLUMNS} for key in shared}


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m mmreid_jax average", description=__doc__)
    parser.add_argument(
        "workdirs", type=path_of, nargs="+", metavar="WORKDIR", help="of runs that differ in split or seed"
    )
    arguments = parser.parse_args(argv)
    repeated = {str(path) for path in arguments.workdirs if arguments.workdirs.count(path) > 1}
    if repeated:
        raise UserError(f"{min(repeated)} is named more than once; name every run once")
    runs = [last_scores(workdir) for workdir in arguments.workdirs]
    means = averages(runs)
    lone = sorted({key for run in runs for key in run} - means.keys())
    if lone:
        described = ", ".join(f"{label} ({protocol})" for label, protocol in lone)
        print(f"note: left out, because only some of the runs have it: {described}", file=sys.stderr)
    for protocol in dict.fromkeys(protocol for _, protocol in means):
        rows = {label: row for (label, of_row), row in means.items() if of_row == protocol}
        drawn = any(run[key].get("drawn") is True for run in runs for key in means if key[1] == protocol)
        title = f"{protocol}: mean ± standard deviation of {len(runs)} runs{' on drawn data' if drawn else ''}"
        print(tables.text_table(tables.ScoreTable(rows, title=title, columns=COLUMNS, mark_best=False)), end="\n\n")
