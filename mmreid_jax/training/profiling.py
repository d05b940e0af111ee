"""A trace of some steps of a run, for TensorBoard, XProf and Perfetto."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

from mmreid_jax.errors import UserError

FOLDER = "profile"
"""Name of the folder in a workdir; the trace is below it in ``plugins/profile/<time>``, where TensorBoard looks."""


class Trace:
    """Traces some consecutive steps after the programs have been compiled; use it in ``with``."""

    def __init__(self, workdir: Path, steps: int, start: int, skip: int, say: Callable[[str], None]) -> None:
        """Plans the trace; nothing is written before it begins.

        Args:
          workdir: of the run; the trace goes into FOLDER.
          steps: to trace; 0 for none.
          start: steps done before this run.
          skip: steps of this run that are not traced because programs are compiled in them.
          say: prints a line.

        Raises:
          UserError: a negative number of steps.
        """
        if steps < 0:
            raise UserError(f"config.train.profile is {steps} steps; choose 0 for no trace, or a positive number")
        self._folder = workdir / FOLDER
        self._first, self._stop = start + skip, start + skip + steps
        self._say = say
        self._state = "waiting" if steps else "done"

    def begins_or_ends_after(self, index: int) -> bool:
        """Whether the trace begins or ends between step `index` and the next, so that they need calls of their own."""
        return self._state != "done" and index + 1 in (self._first, self._stop)

    def before(self, index: int, latest: Any) -> None:
        """Begins or ends the trace where that is due before step `index`; `latest`: what the steps so far computed."""
        if self._state == "waiting" and index >= self._first:
            jax.block_until_ready(latest)
            jax.profiler.start_trace(str(self._folder))
            self._state = "running"
        elif self._state == "running" and index >= self._stop:
            self._end(latest)

    def finish(self, latest: Any) -> None:
        """Ends a trace that lasts to the end of the run; says so where none has begun."""
        if self._state == "running":
            self._end(latest)
        elif self._state == "waiting":
            self._say(f"no profile: it would have begun after step {self._first}, and the run has ended before")

    def _end(self, latest: Any) -> None:
        jax.block_until_ready(latest)
        jax.profiler.stop_trace()
        self._state = "done"
        self._say(
            f"profile of steps {self._first + 1} to {self._stop}: {self._folder} (tensorboard --logdir, or open its "
            "trace.json.gz at ui.perfetto.dev)"
        )

    def __enter__(self) -> Trace:
        """Enters the context."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends a trace that an error has cut off, so that another one can begin in this process."""
        if self._state == "running":
            jax.profiler.stop_trace()
