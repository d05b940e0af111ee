"""What this program wrote, and may replace: the one rule of every command that overwrites.

A directory is this program's if it says so and lists the files that it wrote (its ``meta.json``, or whatever the caller
reads the list from), and if there is nothing else in it. It is replaced in an order that loses nothing: the new one is
written beside it, the old one is moved aside, the new one takes its name, and then the old one's files are deleted,
each by its name. A file is this program's if a mark inside says so: `PAGE_MARK` in a page, `PICTURE_MARK` in a picture.
"""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from mmreid_jax import __version__
from mmreid_jax.errors import UserError, printable
from mmreid_jax.paths import read_json

PROGRAM = "mmreid_jax"
META = "meta.json"
PAGE_MARK = f'<meta name="generator" content="{PROGRAM}">'
PICTURE_MARK = {"Software": PROGRAM}
"""Text that every PNG file of this program has in a chunk of its own."""
Listed = Callable[[pathlib.Path], list[str] | None]
"""Directory -> the paths of this program's files in it, or None where it is not this program's."""
_MOST_FILES = 100_000
# Marks stand at the beginning of a file.
_BEGINNING = 4096


def mark(directory: pathlib.Path, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Writes a directory's ``meta.json``: `meta`, the program's mark and the list of all files in the directory."""
    marked = {**meta, "written_by": PROGRAM, "version": __version__, "files": sorted([*files_of(directory), META])}
    (directory / META).write_text(json.dumps(marked, indent=1) + "\n", encoding="utf-8")
    return marked


def files_of(directory: pathlib.Path) -> list[str]:
    """Paths of all files and links below a directory, with slashes; links are not followed."""
    found = []
    for folder, names, files in os.walk(directory):
        here = pathlib.Path(folder)
        links = [name for name in names if (here / name).is_symlink()]
        found += [(here / name).relative_to(directory).as_posix() for name in (*files, *links)]
        if len(found) > _MOST_FILES:
            break
    return found


def listed_by_meta(directory: pathlib.Path) -> list[str] | None:
    """The files that the ``meta.json`` of a directory lists; None where it does not carry the program's mark."""
    try:
        meta = read_json(directory / META)
        listed = meta["files"] if meta["written_by"] == PROGRAM else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
    sound = isinstance(listed, list) and all(isinstance(name, str) for name in listed)
    return listed if sound else None


def check_directory(
    directory: pathlib.Path,
    overwrite: bool,
    what: str = "converted directory",
    listed: Listed = listed_by_meta,
    flag: str = "--overwrite",
) -> None:
    """Says whether a directory may be written, before there is anything to write.

    Args:
      directory: its name.
      overwrite: whether one of this program's may be replaced.
      what: the directory is, for the message.
      listed: reads which files of a directory are this program's.
      flag: that replaces it, for the message.

    Raises:
      UserError: it exists and is not to be replaced, or is not wholly this program's.
    """
    if not os.path.lexists(directory):
        return
    if not overwrite:
        raise UserError(f"{directory} exists already; choose another directory, or overwrite it with {flag}")
    _owned_files(directory, what, listed)


def _owned_files(directory: pathlib.Path, what: str, listed: Listed) -> list[str]:
    """The files of a directory of this program's, by its own list."""
    refusal = f"{directory} is no {what} and is not overwritten"
    if not directory.is_dir():
        raise UserError(f"{refusal} (it is no directory); choose another one")
    if not any(directory.iterdir()):
        return []
    ours = listed(directory)
    if ours is None:
        raise UserError(
            f"{refusal} (nothing in it says that {PROGRAM} wrote it); choose another one, or delete it yourself"
        )
    foreign = sorted(set(files_of(directory)) - set(ours))
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise UserError(
            f"{directory} is not overwritten: it also holds {printable(foreign[0])}{more}, which {PROGRAM} did not "
            f"write; move that away, or choose another directory"
        )
    return ours


def replace_directory(
    beside: pathlib.Path,
    directory: pathlib.Path,
    overwrite: bool,
    what: str = "converted directory",
    listed: Listed = listed_by_meta,
) -> None:
    """Gives a finished directory its name, in the place of one of this program's or of nothing.

    Args:
      beside: the new one, on the same disk.
      directory: its name to be.
      overwrite: whether a directory there may be replaced.
      what, listed: see `check_directory`.

    Raises:
      UserError: as `check_directory`.
      OSError: the disk does not do it; the old directory is as it was.
    """
    check_directory(directory, overwrite, what, listed)
    if not os.path.lexists(directory):
        beside.rename(directory)
        return
    files = _owned_files(directory, what, listed)
    aside = pathlib.Path(tempfile.mkdtemp(prefix=f".{directory.name[:80]}.old.", dir=directory.parent))
    try:
        # Onto an empty directory: that is what a rename may replace.
        directory.rename(aside)
        try:
            beside.rename(directory)
        except OSError:
            aside.rename(directory)
            raise
    except OSError:
        if aside.is_dir() and not any(aside.iterdir()):
            aside.rmdir()
        raise
    _delete(aside, files)


def _delete(directory: pathlib.Path, files: list[str]) -> None:
    """Deletes the listed files below a directory and the folders that are empty then; what else is there stays."""
    there = set(files_of(directory))
    for name in files:
        if name in there:
            (directory / name).unlink(missing_ok=True)
    for folder, _, _ in os.walk(directory, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            continue


def check_file(path: pathlib.Path, is_ours: Callable[[pathlib.Path], bool], what: str, overwrite: bool = True) -> None:
    """Says whether a file may be written, before there is anything to write.

    Args:
      path: the file.
      is_ours: whether the file there carries this program's mark.
      what: the program writes, for the message.
      overwrite: whether one of this program's may be replaced.

    Raises:
      UserError: there is one that may not be replaced.
    """
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise UserError(f"{path} exists already; choose another file, or overwrite it with --overwrite")
    if path.is_file() and path.stat().st_size == 0:
        return
    if not path.is_file() or not is_ours(path):
        raise UserError(
            f"{path} is not overwritten: it is no {what} that {PROGRAM} wrote; choose another file, or delete it "
            f"yourself"
        )


def is_page(path: pathlib.Path) -> bool:
    """Whether a file is an HTML page of this program."""
    return PAGE_MARK.encode() in _beginning(path)


def is_picture(path: pathlib.Path) -> bool:
    """Whether a file is a PNG picture of this program."""
    begins = _beginning(path)
    return begins.startswith(b"\x89PNG\r\n") and f"tEXtSoftware\0{PROGRAM}".encode() in begins


def _beginning(path: pathlib.Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_BEGINNING)
    except OSError:
        return b""


def check_page(page: pathlib.Path, pictures: str) -> None:
    """Says whether a page and its pictures may be written, before there are any.

    Args:
      page: the HTML file.
      pictures: pattern of the names of the pictures in the folder ``figures`` beside it.

    Raises:
      UserError: there are others than this program's.
    """
    check_file(page, is_page, "page")
    for picture in sorted(page.parent.glob(f"figures/{pictures}")):
        check_file(picture, is_picture, "picture")
