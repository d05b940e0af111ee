"""Of several processes one goes on; the lock of a process that dies is free."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from mmreid_jax import locks
from mmreid_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
HOLD = (
    "import sys, time, pathlib; from mmreid_jax import locks\n"
    "with locks.work_directory(pathlib.Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)\n"
)


@pytest.fixture
def holder(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_told_who_holds_it(tmp_path, holder):
    words = rf"run is in use by process {holder.pid} on .* since .*; wait until it ends"
    with pytest.raises(UserError, match=words), locks.work_directory(tmp_path / "run"):
        pytest.fail("two at a time")


def test_the_lock_of_a_killed_process_is_free(tmp_path, holder):
    holder.kill()
    holder.wait()
    with locks.work_directory(tmp_path / "run"):
        said = json.loads((tmp_path / "run" / locks.FILE).read_text())
    assert said["process"] == os.getpid()
    with locks.work_directory(tmp_path / "run"):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"process": "x"}', '{"process": 1, "machine": 2}'])
def test_a_note_that_cannot_be_read_is_no_traceback(tmp_path, holder, text):
    (tmp_path / "run" / locks.FILE).write_text(text)
    with pytest.raises(UserError, match="in use by another process"), locks.work_directory(tmp_path / "run"):
        pass


def test_what_is_printed_of_a_note_is_printable(tmp_path, holder):
    note = {"process": 7, "machine": "a\x1b[31m", "since": "b\n", "command": "c"}
    (tmp_path / "run" / locks.FILE).write_text(json.dumps(note))
    with pytest.raises(UserError) as caught, locks.work_directory(tmp_path / "run"):
        pass
    assert str(caught.value).isprintable()


def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write to .*file"), locks.work_directory(tmp_path / "file" / "run"):
        pass


def test_exclusive_waits(tmp_path):
    code = "import sys, time, pathlib; from mmreid_jax import locks\nwith locks.exclusive(pathlib.Path(sys.argv[1])):\n"
    code += "    print('held', flush=True); sys.stdin.readline(); print('leaves', flush=True)\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "lock")],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    process.stdin.write("\n")
    process.stdin.flush()
    with locks.exclusive(tmp_path / "lock"):
        assert process.stdout.readline() == "leaves\n"
    process.wait()


def test_without_locks_of_the_system_work_goes_on(tmp_path, monkeypatch, capsys):
    class NoLocks:
        LOCK_EX = LOCK_NB = 0

        @staticmethod
        def flock(*_):
            raise OSError(37, "No locks available")

    monkeypatch.setattr(locks, "fcntl", NoLocks)
    begun = time.monotonic()
    with locks.work_directory(tmp_path / "run"), locks.exclusive(tmp_path / "lock"):
        assert time.monotonic() >= begun
    assert capsys.readouterr().err.count("cannot be locked (No locks available)") == 2
