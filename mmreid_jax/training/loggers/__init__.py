"""Where the numbers of a run go beside its own log: one file for each program, named by ``config.train.loggers``.

A module has ``open_board(run) -> Board``. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import dataclasses
import importlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mmreid_jax.errors import UserError, printable

NAMES = ("tensorboard", "wandb", "mlflow")
"""Programs that numbers can be written for."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What a program is told of a run.

    Attributes:
      workdir: of the run.
      kind: the job, ``train`` or ``adapt``.
      start_step: steps that were done before; 0 for a new run.
      config: of the experiment, as nested dicts.
    """

    workdir: Path
    kind: str
    start_step: int = 0
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def remembered(self, program: str, new: str = "") -> str:
        """The name of this run at a program, kept in the workdir, so that a resumed run goes on with it.

        Args:
          program: in the name of the file.
          new: the name to keep; "": the one that is kept, or for a new run none.
        """
        file = self.workdir / program / f"{self.kind}.id"
        if new:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(new, encoding="utf-8")
            return new
        return file.read_text(encoding="utf-8").strip() if self.start_step and file.is_file() else ""

    def flat(self) -> dict[str, str]:
        """The config as {key with dots: value in words}."""
        found: dict[str, str] = {}

        def walk(tree: Mapping[str, Any], above: str) -> None:
            for key, value in tree.items():
                if isinstance(value, Mapping):
                    walk(value, f"{above}{key}.")
                else:
                    found[above + key] = str(value)

        walk(self.config, "")
        return found


class Board(Protocol):
    """A program that takes numbers."""

    def add(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Takes the numbers of a step; `kind`: ``train``, ``adapt`` or ``eval``."""
        ...

    def close(self) -> None:
        """Takes nothing more."""
        ...


def open_boards(names: Sequence[str], run: Run, say: Callable[[str], None]) -> list[Board]:
    """Opens programs by their names.

    Args:
      names: some of NAMES.
      run: what they are told.
      say: told that TensorBoard, which nobody had to ask for, is not there.

    Raises:
      UserError: another one is not installed, or does not take the run.
    """
    boards: list[Board] = []
    for name in names:
        try:
            boards.append(importlib.import_module(f"{__name__}.{name}").open_board(run))
        except ImportError as error:
            package = (error.name or name).partition(".")[0]
            if name == "tensorboard":
                say(f"{package} is not installed: no TensorBoard files are written (pip install tensorboardX)")
                continue
            for board in boards:
                board.close()
            raise UserError(
                f"config.train.loggers names {name}, but {package} is not installed; pip install "
                f"'mmreid_jax[{name}]', or leave it out"
            ) from None
        except Exception as error:  # Programs of others, and servers behind them, raise what they like.
            for board in boards:
                board.close()
            raise UserError(
                f"config.train.loggers names {name}, which does not take this run ({_told(error)})"
            ) from None
    return boards


def give(boards: list[Board], act: Callable[[Board], None], say: Callable[[str], None]) -> None:
    """Has every program do something; one that fails is said, gets nothing more, and does not stop the run.

    Args:
      boards: those that are open, from which the failing ones are taken away.
      act: what each is to do.
      say: told of failures.
    """
    for board in list(boards):
        try:
            act(board)
        except Exception as error:  # As in `open_boards`.
            boards.remove(board)
            say(f"{type(board).__name__} takes no more numbers of this run ({_told(error)})")


def _told(error: Exception) -> str:
    """The kind of an error and its first line."""
    return printable(f"{type(error).__name__}: {error}".splitlines()[0], 200)


def new_name() -> str:
    """A name that no other run has."""
    return uuid.uuid4().hex[:16]
