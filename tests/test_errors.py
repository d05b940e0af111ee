"""A user's mistake is one line and status 2; an interrupted command ends with 130."""

from __future__ import annotations

import errno
import os

import pytest

from mmreid_jax.errors import UserError, run_command


def raising(error):
    def main():
        raise error

    return main


def test_a_mistake_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        run_command(raising(UserError("nothing there;\nlook elsewhere")))
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: nothing there; look elsewhere\n"


def test_an_interrupted_command_says_nothing_more():
    with pytest.raises(SystemExit) as stop:
        run_command(raising(KeyboardInterrupt()))
    assert stop.value.code == 130


def test_bugs_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError()))


def test_arguments_are_handed_on():
    seen = []
    run_command(lambda *arguments: seen.extend(arguments), 1, "two")
    assert seen == [1, "two"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_a_line_whoever_writes(number, capsys):
    """Libraries that write to an open file do not know its name."""
    with pytest.raises(SystemExit) as stop:
        run_command(raising(OSError(number, os.strerror(number))))
    assert stop.value.code == 2
    said = f"error: {os.strerror(number)}; free some space, or write to another place\n"
    assert capsys.readouterr().err == said
