"""Locks on files: of several processes one goes on, and the operating system frees the lock of a process that dies."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mmreid_jax.errors import UserError, printable
from mmreid_jax.paths import parse_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FILE = "in_use.lock"
"""Name of the file in a work directory whose lock says that a process works there."""


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds the lock of a file, made if need be; waits until no other process holds it."""
    with path.open("a+", encoding="utf-8") as file:
        while not _taken(file, wait=True):
            time.sleep(0.1)
        yield


@contextlib.contextmanager
def work_directory(folder: Path) -> Iterator[None]:
    """Holds a work directory, made if need be, so that no second process writes into it.

    Raises:
      UserError: another process holds it; says which. Or it cannot be written.
    """
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / FILE).open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --workdir") from None
    with file:
        if not _taken(file, wait=False):
            raise UserError(f"{folder} is in use by {_holder(file)}; wait until it ends, or choose another --workdir")
        file.seek(0)
        file.truncate()
        json.dump(
            {
                "process": os.getpid(),
                "machine": platform.node(),
                "since": time.strftime("%Y-%m-%d %H:%M:%S"),
                "command": shlex.join(["python", *sys.argv])[:200],
            },
            file,
        )
        file.flush()
        try:
            yield
        except BaseException:
            # A run that ends before it has left anything leaves no directory either.
            if new and [entry.name for entry in folder.iterdir()] == [FILE]:
                with contextlib.suppress(OSError):
                    (folder / FILE).unlink()
                    folder.rmdir()
            raise


def _holder(file: IO[str]) -> str:
    """Who holds a work directory, as its lock file says."""
    file.seek(0)
    try:
        note = parse_json(file.read(4096))
        words = f"process {int(note['process'])} on {note['machine']} since {note['since']} ({note['command']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
    return printable(words, 400)


def _taken(file: IO[str], wait: bool) -> bool:
    """Whether this process holds the lock of a file now."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        else:
            import msvcrt

            # Windows locks a range of bytes; one far behind the text leaves it readable for others.
            file.seek(1 << 20)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        # Some network file systems have no locks; without one two runs are as safe as they were before.
        print(f"note: {file.name} cannot be locked ({error.strerror})", file=sys.stderr, flush=True)
    return True
