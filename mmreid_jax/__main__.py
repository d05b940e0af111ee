"""The one door to the commands: ``python -m mmreid_jax COMMAND ...``, or where it is installed ``mmreid COMMAND ...``.

A command is a file of ``mmreid_jax/commands`` that defines ``main(arguments)``; there is no table of them. Training,
test-time training and evaluation are ``python main.py --config FILE``.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import re
import sys
from collections.abc import Sequence
from importlib import resources

from mmreid_jax.errors import UserError, run_command


def commands() -> dict[str, str]:
    """Name -> what it does, in a line; nothing is imported for it."""
    files = sorted(resources.files("mmreid_jax.commands").iterdir(), key=lambda file: file.name)
    texts = {file.name.removesuffix(".py"): file.read_text() for file in files if file.name.endswith(".py")}
    programs = {name: text for name, text in texts.items() if re.search(r"^def main\(", text, re.MULTILINE)}
    return {name: (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0] for name, text in programs.items()}


def overview() -> str:
    """The list of commands for the console."""
    known = commands()
    width = max(map(len, known))
    lines = [f"  {name.ljust(width)}  {summary}" for name, summary in known.items()]
    usage = "usage: python -m mmreid_jax COMMAND ...   (--help after a command tells its flags)"
    return "\n".join([usage, "", *lines, "", "Training, adaptation and evaluation: python main.py --config FILE"])


def run(arguments: Sequence[str]) -> None:
    """Runs the command that the first argument names, with the others.

    Raises:
      UserError: there is no such command.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return
    name, known = arguments[0], commands()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise UserError(f"there is no command {name!r}; {hint}")
    importlib.import_module(f"mmreid_jax.commands.{name}").main(list(arguments[1:]))


def main() -> None:
    """The console script."""
    run_command(run, sys.argv[1:])


if __name__ == "__main__":
    main()
