"""What a run writes down: ``metrics.jsonl``, TensorBoard files, lines or a progress bar on the console.

``metrics.jsonl`` holds one flat JSON object a line::

    {"run": "train", "kind": "train", "step": 20, "epoch": 1, "images_per_second": 91.2, "loss": 6.1, "ce": 5.1, ...}
    {"run": "train", "kind": "eval", "step": 100, "epoch": 5, "mAP": 0.41, "R1": 0.39, ...}

``run`` is the job (``train`` or ``adapt``, which count their steps apart), ``kind`` is ``eval`` for scores. Steps and
epochs count from 1. Values that are not finite are written as null.

Metrics arrive as arrays on the device. They are kept there and fetched together every few steps, so that logging never
makes the device wait.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import jax
import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.paths import parse_json
from mmreid_jax.training import distributed
from mmreid_jax.training.loggers import Board, Run, give, open_boards

FILE = "metrics.jsonl"
SCORES_FILE = "scores.jsonl"
"""Name of the log in a workdir."""

_log = logging.getLogger(__name__)
_RESERVED = ("run", "kind", "step", "epoch", "images_per_second")


class RunLog:
    """The log of one job. A context manager.

    On resuming, lines of steps that will be done again are removed, so that every step is there once.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        kind: str = "train",
        start_step: int = 0,
        total_steps: int,
        loggers: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
        last_good: Callable[[], int | None] | None = None,
        rescored: bool = False,
        stream: TextIO | None = None,
        seconds: float = 10.0,
    ) -> None:
        """Opens the log; only the first process of a run writes.

        Args:
          workdir: created if need be.
          kind: the job, ``train`` or ``adapt``.
          start_step: number of steps done before; 0 starts the log of this job anew. A training job that has steps to
            do also removes the lines of adaptation: they were made from another model.
          total_steps: of the whole job.
          loggers: programs that get the same numbers, see `mmreid_jax.training.loggers`.
          config: of the experiment, which some of them show.
          last_good: tells the step of the last checkpoint, for the message about a loss that is not finite.
          rescored: whether the state at `start_step` will be scored again: a line with its scores is removed.
          stream: console; None for standard error.
          seconds: shortest time between two console lines where the console is no terminal.

        Raises:
          UserError: the log cannot be written, or is not one; or such a program is not installed.
        """
        self.kind = kind
        self.path = Path(workdir) / FILE
        self._last_good = last_good
        self._pending: list[tuple[int, int, Mapping[str, Any]]] = []
        self._clock: float | None = None
        self._begun = False
        self._images = 0
        self._writes = distributed.is_main()
        self._progress = ProgressBar(total_steps, start_step, kind, stream, seconds, silent=not self._writes)
        self._boards: list[Board] = []
        if self._writes:
            with _writing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._drop(start_step, total_steps, rescored)
                self._file = self.path.open("ab", buffering=0)
            self._boards = open_boards(loggers, Run(self.path.parent, kind, start_step, config or {}), self.say)

    def step(self, step: int, epoch: int, metrics: Mapping[str, Any], *, images: int, every: int) -> None:
        """Takes the metrics of a step; at every `every`-th step writes their means since the line before.

        The first step since the start is told on the console at once: all is well, or is not.

        Args:
          step: number of steps done with this one.
          epoch: of this step, from 1.
          metrics: name -> scalar, usually still being computed on the device.
          images: samples in the batch, for the rate.
          every: steps between two lines.

        Raises:
          UserError: a metric of one of the steps is not finite; nothing of them is written.
        """
        self._pending.append((step, epoch, dict(metrics)))
        if self._clock is None:
            # The first step since the start or since an evaluation is not timed: it includes compiling or waiting.
            self._clock, self._images = time.monotonic(), 0
        else:
            self._images += images
        begins, self._begun = not self._begun, True
        if step % every and step != self._progress.total:
            if begins:
                self.say(f"step {step}, epoch {epoch}  {_brief(self.check_finite()[-1])}")
                self._clock = time.monotonic()
            return
        fetched = self.check_finite()
        rate = self._images / max(time.monotonic() - self._clock, 1e-9)
        names = fetched[-1]
        means = {name: float(np.mean([values[name] for values in fetched])) for name in names}
        timing = {"images_per_second": rate} if self._images else {}
        self._write(self.kind, step, epoch, means, timing)
        rated = f"{rate:.1f} images/s" if timing else ""
        self._progress.update(step, f"epoch {epoch}  {_brief(means)}", rated, always=begins)
        self._pending, self._clock, self._images = [], time.monotonic(), 0

    @property
    def timed(self) -> bool:
        """Whether the next step counts in the rate: not the first one, which includes compiling or waiting."""
        return self._clock is not None

    def evaluation(self, step: int, epoch: int, scores: Mapping[str, Any]) -> None:
        """Writes the scores of a state, numbers and texts by name; the time it took does not count as training."""
        self._write("eval", step, epoch, scores, {})
        percents = {name: x for name, x in scores.items() if isinstance(x, float) and not name.endswith("_std")}
        # The gap between modalities is a length, everything else a share.
        words = [f"{name} {x:.3f}" if name == "gap" else f"{name} {100 * x:.2f} %" for name, x in percents.items()]
        place = f"step {step}, epoch {epoch}" if step else f"before the first step, {scores.get('label', 'untrained')}"
        self.say(f"{place}: {'  '.join(words)}")
        self._clock = None

    def check_finite(self) -> list[dict[str, float]]:
        """Waits for the steps so far and looks at their metrics, so that no broken state is saved.

        Returns:
          The metrics of the steps since the last line, as numbers.

        Raises:
          UserError: one of them is not finite; names the term, the step and the remedy.
        """
        fetched: list[dict[str, float]] = []
        for (step, _, _), values in zip(
            self._pending, jax.device_get([metrics for _, _, metrics in self._pending]), strict=True
        ):
            bad = first_bad_term(values)
            if bad is not None:
                good = self._last_good() if self._last_good else None
                raise UserError(not_finite(bad, float(values[bad]), step, good))
            fetched.append({name: float(value) for name, value in values.items()})
        return fetched

    def say(self, text: str) -> None:
        """Prints lines on the console, above the progress bar where there is one."""
        self._progress.say(text)

    def close(self) -> None:
        """Closes the files; a few last steps without a line of their own are not written."""
        self._progress.close()
        give(self._boards, lambda board: board.close(), self.say)
        if self._writes:
            self._file.close()

    def __enter__(self) -> RunLog:
        """Enters the context."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes."""
        self.close()

    def _write(self, kind: str, step: int, epoch: int, values: Mapping[str, Any], timing: Mapping[str, float]) -> None:
        """Appends one line, and gives the same numbers to the other programs."""
        taken = [name for name in values if name in _RESERVED]
        if taken:
            raise ValueError(f"a metric may not be called {taken[0]!r}: the log uses this name itself")
        if not self._writes:
            return
        entry = {"run": self.kind, "kind": kind, "step": step, "epoch": epoch, **timing, **values}
        line = json.dumps({name: _plain(value) for name, value in entry.items()}) + "\n"
        with _writing(self.path):
            _append(self._file, line.encode())
        plain = {name: _plain(value) for name, value in {**timing, **values}.items()}
        numbers = {name: float(value) for name, value in plain.items() if isinstance(value, int | float)}
        give(self._boards, lambda board: board.add(kind, step, numbers), self.say)

    def _drop(self, start_step: int, total_steps: int, rescored: bool) -> None:
        """Removes the lines that this job will write again, all at once or not at all."""
        if not self.path.exists():
            return

        def stays(entry: Mapping[str, Any]) -> bool:
            if entry["run"] == self.kind:
                if rescored and entry["kind"] == "eval" and entry["step"] == start_step:
                    return False
                return start_step > 0 and entry["step"] <= start_step
            return self.kind != "train" or start_step >= total_steps

        damaged: list[int] = []
        kept = [entry for entry in read_metrics(self.path, damaged) if stays(entry)]
        if damaged:
            aside = self.path.with_name(f"{self.path.name}.damaged")
            shutil.copyfile(self.path, aside)
            self.say(f"{self.path} is damaged in {_lines(damaged)}, which are left out from now on; a copy is {aside}")
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
        os.replace(temporary, self.path)


class ProgressBar:
    """How far a long job is: a bar on a terminal, else a line every few seconds, with the time that is left."""

    def __init__(
        self,
        total: int,
        start: int = 0,
        title: str = "",
        stream: TextIO | None = None,
        seconds: float = 10.0,
        silent: bool = False,
    ) -> None:
        """Begins.

        Args:
          total: when the job is done.
          start: how far it is already.
          title: in front of every line.
          stream: console; None for standard error.
          seconds: shortest time between two lines; the last line is always printed.
          silent: print nothing at all.
        """
        self.total = total
        self._start = start
        self._title = title
        self._stream = sys.stderr if stream is None else stream
        self._seconds = seconds
        self._silent = silent
        self._began = self._printed = time.monotonic()
        self._bar = None if silent or not self._stream.isatty() else _bar(total, start, title, self._stream)

    def update(self, done: int, note: str = "", rate: str = "", always: bool = False) -> None:
        """Says that `done` of the total are done, with `note` and `rate`; with `always` however soon after a line."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str("  ".join(filter(None, (note, rate))), refresh=False)
            self._bar.update(done - self._bar.n)
        elif not self._silent and (always or now - self._printed >= self._seconds or done == self.total):
            self._printed = now
            left = (now - self._began) / max(done - self._start, 1) * (self.total - done)
            parts = (f"{self._title} {done}/{self.total}".strip(), note, rate, f"{_clock(left)} left")
            self.say("  ".join(filter(None, parts)))

    def say(self, text: str) -> None:
        """Prints lines, above the bar where there is one."""
        if self._silent:
            return
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


def keep_scores(workdir: Path, rows: Sequence[Mapping[str, Any]], **extra: Any) -> None:
    """Appends the rows of an evaluation to `SCORES_FILE` of the workdir, with `extra` and the time.

    Raises:
      UserError: they cannot be written; the file is as it was.
    """
    if not distributed.is_main():
        return
    path = workdir / SCORES_FILE
    lines = "".join(json.dumps({**row, **extra, "time": round(time.time(), 3)}) + "\n" for row in rows)
    with _writing(path):
        workdir.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            _append(file, lines.encode())


def _append(file: FileIO, content: bytes) -> None:
    """Appends to a file, all of `content` or nothing."""
    before, left = file.seek(0, os.SEEK_END), memoryview(content)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError:
        file.truncate(before)
        raise


def is_of_training(workdir: Path) -> bool:
    """Whether a training keeps its log in a workdir."""
    return any(entry["run"] == "train" for entry in entries(workdir))


def first_scores(workdir: Path) -> dict[str, dict[str, Any]]:
    """What the run's log says of the evaluations before the first step, by label: ``untrained``, ``trunk alone``."""
    return {
        str(entry.get("label", "untrained")): entry
        for entry in entries(workdir)
        if entry["kind"] == "eval" and entry["run"] == "train" and entry["step"] == 0
    }


def entries(workdir: Path) -> list[dict[str, Any]]:
    """The lines of the log of a run that can be read, none where it has no log; a warning names the others.

    For what comes after the work: a damaged line of the log is no reason to lose it.
    """
    path = workdir / FILE
    if not path.exists():
        return []
    damaged: list[int] = []
    readable = read_metrics(path, damaged)
    if damaged:
        _log.warning("%s is damaged in %s, which are left out", path, _lines(damaged))
    return readable


def read_metrics(path: str | Path, damaged: list[int] | None = None) -> list[dict[str, Any]]:
    """The entries of a ``metrics.jsonl``; a last line cut off by a kill is left out.

    Args:
      path: of the file.
      damaged: receives the numbers of the lines that are no entries of such a log; None: such a line is an error.

    Raises:
      UserError: the file cannot be read, or a line before the last is not an entry of such a log.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"cannot read the log {path}: {error.strerror}; give the metrics.jsonl of a run") from None
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            entry = parse_json(line)
        except ValueError:
            # Every complete line ends in a line break, so only a cut one can be last.
            if number == len(lines):
                continue
            entry = None
        if _is_entry(entry):
            entries.append(entry)
        elif damaged is not None:
            damaged.append(number)
        else:
            raise UserError(
                f"line {number} of {path} is no entry of a log; remove the line, or choose another --workdir"
            )
    return entries


def _is_entry(entry: Any) -> bool:
    kinds = {"run": str, "kind": str, "step": int, "epoch": int}
    return isinstance(entry, dict) and all(isinstance(entry.get(name), kind) for name, kind in kinds.items())


def _lines(numbers: Sequence[int]) -> str:
    """``lines 3, 4, 9``; at most ten of them."""
    listed = ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
    return f"line{'s' if len(numbers) > 1 else ''} {listed}"


def first_bad_term(terms: Mapping[str, Any]) -> str | None:
    """The name of the value that is not finite and tells most, or None.

    Where one term of a loss is not finite, the total and the norms of the gradient and the update are not either, so
    terms come first, then ``loss``, then norms.
    """

    def closeness(name: str) -> int:
        return 2 if name.startswith("norm_") else 1 if name == "loss" else 0

    bad = [name for name, value in terms.items() if not np.all(np.isfinite(np.asarray(value)))]
    return min(bad, key=closeness, default=None)


def not_finite(term: str, value: float, step: int, last_good: int | None = None) -> str:
    """The sentence about a term that is not finite.

    Args:
      term: its name.
      value: NaN or an infinity.
      step: at which it was found.
      last_good: step of the last checkpoint, if there is one.
    """
    became = "NaN" if math.isnan(value) else "infinite"
    what = term if term.startswith("norm_") else f"loss term {term!r}"
    good = "" if last_good is None else f" the last good checkpoint is that of step {last_good};"
    return (
        f"{what} became {became} at step {step};{good} lower --config.optim.lr, clip the gradient with "
        f"--config.optim.clip_norm, or compute in float32 (--config.model.dtype=float32)"
    )


def _brief(means: Mapping[str, float]) -> str:
    """The loss first, then its terms; norms are for the files."""
    names = sorted((name for name in means if not name.startswith("norm_")), key=lambda name: name != "loss")
    return "  ".join(f"{name} {means[name]:.4g}" for name in names)


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    value = value.item() if isinstance(value, (np.generic, np.ndarray, jax.Array)) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _bar(total: int, start: int, title: str, stream: TextIO) -> Any:
    """A tqdm bar, or None where tqdm is missing."""
    try:
        import tqdm
    except ImportError:
        return None
    return tqdm.tqdm(total=total, initial=start, desc=title, file=stream, dynamic_ncols=True, unit="step")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns a failed write into a sentence."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the log {path}: {error.strerror}; free some space or choose a --workdir that can be written"
        ) from None
