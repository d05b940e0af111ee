"""Errors that a user can act on, and the one place where commands print them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from mmreid_jax import interruption

_LONGEST_MESSAGE = 4000


class UserError(Exception):
    """Something the user can mend: one sentence saying what is wrong, where, and what to do."""


def readable(text: object, limit: int = 120) -> str:
    """A name or text from a file as it may be shown: in one line, what does not print escaped, a long one cut."""
    shown = text if isinstance(text, str) else repr(text)
    if len(shown) > limit:
        shown = f"{shown[: limit - 24]}... ({len(shown):,} characters)"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def run_command(main: Callable[..., Any], *args: Any) -> None:
    """Runs ``main(*args)``; a `UserError` becomes one line on standard error and exit status 2, Ctrl-C one and 130."""
    try:
        with interruption.acknowledged("interrupted; ending (once more: at once)", obey=True):
            main(*args)
    except UserError as error:
        message = " ".join(str(error).split("\n")) if "\n" in str(error) else str(error)
        print(f"error: {readable(message, _LONGEST_MESSAGE)}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
