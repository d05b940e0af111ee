"""TensorBoard files in ``WORKDIR/tensorboard/KIND``, by tensorboardX.

Its `SummaryWriter` writes in a thread of its own and once more when the process ends; where the disk is full both print
a traceback beside the clear line of the run. So its file is written here, in the thread that logs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

from mmreid_jax.training.loggers import Run


class TensorBoard:
    """See `mmreid_jax.training.loggers.Board`."""

    def __init__(self, writer: Any) -> None:
        """Around tensorboardX's `EventsWriter`."""
        self._writer = writer

    def begin(self, step: int) -> None:
        """Hides what the files of earlier starts say of a step and of those after it."""
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._write(Event(step=step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Writes the numbers of a step."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        self._write(*(Event(step=step, summary=scalar(f"{kind}/{name}", value)) for name, value in values.items()))

    def _write(self, *events: Any) -> None:
        try:
            for event in events:
                event.wall_time = time.time()
                self._writer.write_event(event)
            self._writer.flush()
        except OSError:
            # What could not be written is still held, and would be tried again when nobody listens.
            with contextlib.suppress(OSError):
                self._writer.close()
            raise

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()


def open_board(run: Run) -> TensorBoard:
    """Files that hide what a resumed run does again."""
    from tensorboardX.event_file_writer import EventsWriter

    folder = run.workdir / "tensorboard" / run.kind
    folder.mkdir(parents=True, exist_ok=True)
    board = TensorBoard(EventsWriter(str(folder / "events")))
    board.begin(run.start_step + 1)
    return board
