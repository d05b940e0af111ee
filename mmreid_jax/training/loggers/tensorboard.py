"""TensorBoard files in ``WORKDIR/tensorboard/KIND``, by tensorboardX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmreid_jax.training.loggers import Run


class TensorBoard:
    """See `mmreid_jax.training.loggers.Board`."""

    def __init__(self, writer: Any) -> None:
        """Around tensorboardX's writer."""
        self._writer = writer

    def add(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Writes the numbers of a step."""
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()


def open_board(run: Run) -> TensorBoard:
    """Files that hide what a resumed run does again."""
    import tensorboardX

    folder = run.workdir / "tensorboard" / run.kind
    return TensorBoard(tensorboardX.SummaryWriter(str(folder), purge_step=run.start_step + 1))
