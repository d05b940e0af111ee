"""Signals are answered while the main thread is busy, obeyed or noted once, and end the process the second time."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from mmreid_jax import interruption

ROOT = pathlib.Path(__file__).parents[1]
# Sleeps in C, so that no handler of Python's can run, until it has slept enough or the process is ended.
BUSY = """
import ctypes, sys
from mmreid_jax import interruption
with interruption.acknowledged("noted", obey={obey}) as interrupted:
    print("ready", flush=True)
    ctypes.CDLL(None).sleep({seconds})
    ctypes.CDLL(None).sleep({seconds})
    print("interrupted", interrupted(), flush=True)
"""


def start(obey, seconds):
    code = BUSY.format(obey=obey, seconds=seconds)
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def answer(process):
    lines = iter(process.stderr.readline, "")
    return next(line for line in lines if line.strip()).strip()


@pytest.mark.parametrize("number", interruption.SIGNALS)
def test_a_signal_is_noted_and_answered_before_the_work_is_done(number):
    process = start(obey=False, seconds=1)
    process.send_signal(number)
    assert answer(process) == "noted"
    out, _ = process.communicate(timeout=60)
    assert out == "interrupted True\n"
    assert process.returncode == 0


def test_a_second_signal_ends_the_process_in_the_middle_of_its_work():
    process = start(obey=False, seconds=300)
    process.send_signal(signal.SIGINT)
    assert answer(process) == "noted"
    process.send_signal(signal.SIGINT)
    assert answer(process) == interruption.AT_ONCE
    assert process.wait(timeout=60) == 128 + signal.SIGINT


def test_an_obeyed_signal_interrupts_the_main_thread():
    process = start(obey=True, seconds=1)
    process.send_signal(signal.SIGINT)
    assert answer(process) == "noted"
    out, rest = process.communicate(timeout=60)
    assert out == ""
    assert "KeyboardInterrupt" in rest


# The handler's exception comes in a method from which Python takes none.
LOST = """
import gc, sys, time
from mmreid_jax import interruption

def wait():
    print("ready", flush=True)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        time.sleep(0.01)

class Deleted:
    def __del__(self):
        wait()

def collected(phase, info):
    gc.callbacks.clear()
    wait()

with interruption.acknowledged("noted", obey=True):
    if sys.argv[1] == "deleted":
        Deleted()
    else:
        gc.callbacks.append(collected)
        gc.collect()
    time.sleep(60)
    print("went on", flush=True)
"""


def start_losing(where):
    process = subprocess.Popen(
        [sys.executable, "-c", LOST, where], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert answer(process) == "noted"
    return process


@pytest.mark.parametrize("where", ["deleted", "collected"])
def test_an_interrupt_that_nobody_could_take_is_raised_again(where):
    process = start_losing(where)
    out, rest = process.communicate(timeout=50)
    assert out == ""
    assert process.returncode == -signal.SIGINT, "as Python ends of a KeyboardInterrupt"
    assert rest.rstrip().endswith("KeyboardInterrupt")
    assert "Exception ignored" not in rest
    assert interruption.AT_ONCE not in rest


def test_the_second_signal_still_ends_the_process_at_once():
    process = start_losing("deleted")
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=50)
    assert rest.rstrip().endswith(interruption.AT_ONCE)
    assert process.returncode == 128 + signal.SIGTERM


def test_handlers_are_those_of_before_afterwards():
    before = [signal.getsignal(number) for number in interruption.SIGNALS]
    hook = sys.unraisablehook
    with interruption.acknowledged("", obey=False), interruption.acknowledged("", obey=True):
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert [signal.getsignal(number) for number in interruption.SIGNALS] == before
    assert sys.unraisablehook is hook


def test_other_threads_are_left_alone():
    seen = []

    def run():
        with interruption.acknowledged("", obey=False) as interrupted:
            seen.append(interrupted())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]
