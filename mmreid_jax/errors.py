"""Errors that a user can act on, and the one place where commands print them."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Callable
from typing import Any

from mmreid_jax import interruption

LONGEST_NAME = 200
_LONGEST_MESSAGE = 4000
# Only writing has these errors, whatever the program: who writes to an open file is not told its name.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def printable(text: object, longest: int = LONGEST_NAME) -> str:
    """A name or text from a file as it may be shown: control characters and broken encodings escaped, cut if long.

    A terminal obeys control characters, a line break would make two lines of one, and a lone surrogate (a byte of a
    file name that is not UTF-8) cannot be printed at all.
    """
    shown = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in str(text)[: longest + 1]
    )
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."


def is_text(name: str) -> bool:
    """Whether a name or text can be written: a byte that is not UTF-8, or JSON's ``\\ud800``, is no letter."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class UserError(Exception):
    """Something the user can mend: one sentence saying what is wrong, where, and what to do."""


def run_command(main: Callable[..., Any], *args: Any) -> None:
    """Runs ``main(*args)``; a `UserError` becomes one line on standard error and exit status 2, Ctrl-C one and 130.

    So does what the operating system says of a file where nobody has put it into better words (a folder that may not
    be entered, a name that is too long, a full disk), and names print whatever the terminal's encoding.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with interruption.acknowledged("interrupted; ending (once more: at once)", obey=True):
            main(*args)
    except UserError as error:
        message = str(error).replace("\n", " ")
        print(f"error: {printable(message, _LONGEST_MESSAGE)}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        of_disk = error.errno in _OF_THE_DISK
        if isinstance(error, BrokenPipeError) or (error.filename is None and not of_disk):
            raise
        named = "" if error.filename is None else f"{printable(error.filename)}: "
        advice = "; free some space, or write to another place" if of_disk else ""
        print(f"error: {named}{error.strerror or printable(str(error))}{advice}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
