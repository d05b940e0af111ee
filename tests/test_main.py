"""The one door to the commands."""

from __future__ import annotations

import pathlib

import pytest

import mmreid_jax.__main__ as door
from mmreid_jax import commands
from mmreid_jax.errors import UserError


def test_every_command_is_listed_with_a_line(capsys):
    door.run([])
    lines = capsys.readouterr().out.splitlines()
    folder = pathlib.Path(commands.__file__).parent
    with_main = {path.stem for path in folder.glob("*.py") if "\ndef main(" in path.read_text()}
    assert set(door.commands()) == with_main
    for name, summary in door.commands().items():
        assert summary.endswith("."), f"{name}: {summary}"
        assert any(line.split()[:1] == [name] and line.endswith(summary) for line in lines)


@pytest.mark.parametrize("name", door.commands())
def test_every_command_tells_its_flags_under_its_name(name, capsys):
    with pytest.raises(SystemExit) as stop:
        door.run([name, "--help"])
    assert stop.value.code == 0
    assert f"usage: python -m mmreid_jax {name} " in capsys.readouterr().out


def test_a_misspelt_command_gets_a_hint():
    with pytest.raises(UserError, match="there is no command 'prepair'; did you mean prepare"):
        door.run(["prepair"])
    with pytest.raises(UserError, match="there are average, calibrate, captioning"):
        door.run(["zzz"])
