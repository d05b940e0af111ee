"""Paths that users name: read one way in every flag and config, tried before the work, and nothing lost after it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmreid_jax.errors import UserError, printable

EMPTY = "the file is empty"
"""What `file_problem` says of such a file."""
DATA_DIR_VARIABLE = "MMREID_DATA"
"""Environment variable that names the folder of prepared data sets."""
OWN = "own:"
"""Beginning of the names of data sets of one's own (`mmreid_jax.datasets.own`)."""
_OWN_VERSION = "1.0.0"


def default_data_dir() -> Path:
    """The folder of prepared data sets: the environment variable ``MMREID_DATA``, else ``data``."""
    return Path(os.environ.get(DATA_DIR_VARIABLE, "data"))


def own_description(dataset: str, data_dir: str | os.PathLike[str]) -> Path:
    """The file beside the records of a data set of one's own, ``own:NAME``, that says what it is."""
    return path_of(data_dir).absolute() / "own" / dataset.removeprefix(OWN) / _OWN_VERSION / "own.json"


def own_names(data_dir: str | os.PathLike[str]) -> tuple[str, ...]:
    """The data sets of one's own that are prepared in a folder, ``own:NAME`` each."""
    found = sorted(own_description("*", path_of(data_dir)).parents[2].glob(f"*/{_OWN_VERSION}/own.json"))
    return tuple(f"{OWN}{path.parents[1].name}" for path in found)


def path_of(text: str | os.PathLike[str]) -> Path:
    """The path that a flag or a config names: ``~`` is a home, everything else is taken as it is written.

    Relative paths begin in the working directory. Blanks and letters of any script are part of a name.

    Raises:
      UserError: it is empty, has a null byte, or names the home of somebody who is not here.
    """
    written = os.fspath(text)
    if not written.strip():
        raise UserError("a path is empty; name a file or folder")
    if "\0" in written:
        raise UserError(f"the path {printable(written)} has a null byte; no file can be named so")
    try:
        return Path(written).expanduser()
    except RuntimeError:
        raise UserError(f"there is no home {written.split('/')[0]} on this machine; write the path in full") from None


def reason_of(error: OSError) -> str:
    """What the operating system says, in lower case and without its number."""
    text = error.strerror or str(error) or type(error).__name__
    return text[:1].lower() + text[1:]


def parse_json(text: str | bytes) -> Any:
    """What a text in JSON says; `ValueError` for any text that is none, one that is nested without end included."""
    try:
        return json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_bytes(path: Path) -> bytes:
    """The content of a file; `OSError` also where it is no regular one: a pipe would make everybody wait."""
    state = path.stat()
    if not (stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode)):
        raise OSError(errno.EINVAL, "it is no regular file, but a pipe, socket or device", str(path))
    return path.read_bytes()


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with a mark or without; raises `OSError`, or `UnicodeDecodeError` for any other."""
    return read_bytes(path).decode("utf-8-sig")


def read_json(path: Path) -> Any:
    """What a file in JSON says; raises `OSError`, or `ValueError` where it is damaged."""
    return parse_json(read_bytes(path))


def file_problem(path: Path, most_bytes: int | None = None) -> str:
    """Why a file cannot be read as one, ``""`` where it can; nothing is opened, so that no pipe makes anybody wait.

    Args:
      path: of the file.
      most_bytes: a larger file is a problem.
    """
    try:
        state = path.stat()
    except FileNotFoundError:
        return "a link to nothing" if path.is_symlink() else "there is no such file"
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links is a RuntimeError to some Pythons
        return reason_of(error) if isinstance(error, OSError) else str(error)
    if stat.S_ISDIR(state.st_mode):
        return "a folder"
    if not stat.S_ISREG(state.st_mode):
        return "no regular file, but a pipe, socket or device"
    if not os.access(path, os.R_OK):
        return "permission denied"
    if not state.st_size:
        return EMPTY
    if most_bytes is not None and state.st_size > most_bytes:
        return f"its {state.st_size / 2**30:.1f} GiB are more than the {most_bytes / 2**30:.0f} GiB that are read"
    return ""


def check_output(path: Path, flag: str, *, folder: bool = False, size: int = 0) -> None:
    """Finds out before the work whether an output can be written; leaves no trace.

    Args:
      path: of the file, or of the folder.
      flag: that named it, for messages.
      folder: whether it is a folder.
      size: bytes that will be written, where that is known.

    Raises:
      UserError: it cannot be written, or there is no space for it.
    """
    place = path if folder else path.parent
    made: list[Path] = []
    try:
        if not folder and path.is_dir():
            raise UserError(f"{flag} {path} is a folder; name a file")
        if folder and path.exists() and not path.is_dir():
            raise UserError(f"{flag} {path} is a file; name a folder")
        made = [each for each in (place, *place.parents) if not each.exists()]
        place.mkdir(parents=True, exist_ok=True)
        prefix = "." if folder else f"{path.name}."
        with tempfile.NamedTemporaryFile(prefix=prefix, dir=place) as probe:
            probe.write(bytes(4096))
            probe.flush()
        free = shutil.disk_usage(place).free
    except OSError as error:
        raise UserError(
            f"{flag} {printable(path)} cannot be written ({reason_of(error)}); name another place"
        ) from None
    finally:
        for each in made:
            with contextlib.suppress(OSError):
                each.rmdir()
    if size > free:
        raise UserError(
            f"{flag} {path} needs {size / 2**30:.2f} GiB, but {free / 2**30:.2f} GiB are free there; free some space "
            "or name another place"
        )


@contextlib.contextmanager
def whole(path: Path, ending: str = ".part") -> Iterator[Path]:
    """A file to write beside `path`, which takes that name when it is complete; nothing is left of one that is not.

    Raises:
      OSError: what the block raises; it names the file, which libraries that write to an open file do not.
    """
    beside = path.with_name(path.name + ending)
    try:
        yield beside
        beside.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError) and error.filename is None:
            # Some libraries say in words alone what went wrong.
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
        raise


def write_or_rescue(path: Path, write: Callable[[Path], object]) -> None:
    """Calls ``write(path)``; where that fails, writes beside the system's temporary files and says where.

    Args:
      path: of the file.
      write: writes it, complete or not at all.

    Raises:
      UserError: it could not be written there; the message says where it is instead.
    """
    try:
        write(path)
        return
    except (OSError, UserError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
    try:
        rescued = Path(tempfile.mkdtemp(prefix="mmreid_jax_")) / (path.name[-100:] or "output")
        write(rescued)
    except (OSError, UserError):
        raise UserError(f"{printable(path)} cannot be written ({reason}), nor could any temporary file") from None
    raise UserError(f"{printable(path)} cannot be written ({reason}); what was computed is in {rescued}") from None
