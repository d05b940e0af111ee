"""The image files of a folder: the one listing that all commands use, and what in it cannot be used, with reasons."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from mmreid_jax.data.images import BrokenImage
from mmreid_jax.errors import UserError, printable
from mmreid_jax.paths import EMPTY, file_problem, reason_of

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff"),
    *(".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"),
)
"""Of the files that are read, in any case of letters."""
UNREAD = (".heic", ".heif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw", ".psd", ".svg", ".seq", ".fff")
"""Of images in formats that are not read; named, never passed over in silence."""
MOST_BYTES = 1 << 30
"""Of an image file."""
_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Attributes:
      files: names of the images, relative to the folder, with ``/`` between folders, sorted.
      unusable: name -> why, of what looks like an image by its name and cannot be read as a file.
    """

    files: tuple[str, ...]
    unusable: dict[str, str]


def list_images(folder: Path, *, below: bool = False) -> Listing:
    """The image files in a folder, by their suffix.

    Hidden files (``._x.jpg``, which macOS leaves beside ``x.jpg``) are no images. Links to files are followed, links
    to folders are not.

    Args:
      folder: to look into.
      below: at any depth.

    Raises:
      UserError: the folder cannot be read.
    """
    files: list[str] = []
    unusable: dict[str, str] = {}

    def failed(error: OSError) -> None:
        place = Path(error.filename)
        if place == folder:
            raise UserError(f"the folder {printable(folder)} cannot be read ({reason_of(error)})") from None
        unusable[place.relative_to(folder).as_posix()] = reason_of(error)

    for parent, folders, names in os.walk(folder, onerror=failed):
        # A folder that is called like an image is named; one with another name is looked into, or not.
        for name in (*names, *folders):
            path = Path(parent) / name
            suffix, shown = path.suffix.lower(), path.relative_to(folder).as_posix()
            if suffix in UNREAD and name in names:
                unusable[shown] = f"images with the suffix {suffix} are not read; save it as PNG or TIFF"
            elif suffix in SUFFIXES:
                problem = "a hidden file" if name.startswith(".") else file_problem(path, MOST_BYTES)
                # An empty file is one like any other that cannot be decoded, which only who decodes it finds.
                if problem and problem != EMPTY:
                    unusable[shown] = problem
                else:
                    files.append(shown)
        if not below:
            break
    return Listing(tuple(sorted(files)), dict(sorted(unusable.items())))


def read_file(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
      BrokenImage: it is no regular file, too large, or cannot be read; a pipe is not waited for.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            state = os.fstat(descriptor)
            if stat.S_ISREG(state.st_mode) and state.st_size <= MOST_BYTES:
                return file.read()
        reason = file_problem(path, MOST_BYTES)
    except OSError as error:
        reason = file_problem(path, MOST_BYTES) or reason_of(error)
    raise BrokenImage(f"{printable(path)} cannot be read ({reason}); get it again", reason)


def in_words(unusable: Mapping[str, str], shown: int = _SHOWN) -> str:
    """Names with reasons, at most `shown` of them, and how many more there are."""
    pairs = list(unusable.items())
    text = ", ".join(f"{printable(name)} ({reason})" for name, reason in pairs[:shown])
    return text if len(pairs) <= shown else f"{text} and {len(pairs) - shown} more"
