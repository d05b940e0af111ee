"""Errors that a user can act on, and the one place where commands print them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from mmreid_jax import interruption


class UserError(Exception):
    """Something the user can mend: one sentence saying what is wrong, where, and what to do."""


def run_command(main: Callable[..., Any], *args: Any) -> None:
    """Runs ``main(*args)``; a `UserError` becomes one line on standard error and exit status 2, Ctrl-C one and 130."""
    try:
        with interruption.acknowledged("interrupted; ending (once more: at once)", obey=True):
            main(*args)
    except UserError as error:
        message = " ".join(str(error).split("\n")) if "\n" in str(error) else str(error)
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
