"""A machine without the devices that are asked for says so in one line."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.training import devices

ROOT = pathlib.Path(__file__).parents[2]


def test_devices_are_those_of_jax():
    assert devices.available() == jax.devices()


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("Unable to initialize backend 'x': no\nmore")])
@pytest.mark.parametrize("platform", ["cuda", ""])
def test_one_line(monkeypatch, error, platform):
    def none():
        raise error

    monkeypatch.setattr(jax, "devices", none)
    monkeypatch.setenv("JAX_PLATFORMS", platform)
    with pytest.raises(UserError, match="JAX finds no device") as caught:
        devices.available()
    assert "\n" not in str(caught.value)
    assert ("JAX_PLATFORMS=cuda" in str(caught.value)) == bool(platform)


@pytest.mark.slow
def test_the_command_line(tmp_path):
    arguments = [sys.executable, "main.py", "--config", "configs/demo.py", "--workdir", str(tmp_path / "run")]
    environment = {**os.environ, "JAX_PLATFORMS": "foo"}
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert line.startswith("error: JAX finds no device of JAX_PLATFORMS=foo")
    assert not (tmp_path / "run").exists()
