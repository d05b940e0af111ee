"""Clocks and memory of `step_time.py`: sides take turns, and of all turns the fastest counts."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import torch

Side = tuple[Callable[[], Any], Callable[[Any], None]]
"""What is timed, and what waits until its result is there."""


class Seconds(NamedTuple):
    """Of the fastest turn."""

    wall: float
    processor: float


class OutOfMemory(Exception):
    """A side did not fit."""


def turn(function: Callable[[], Any], wait: Callable[[Any], None], inner: int) -> Seconds:
    """Seconds per call of one turn of `inner` calls."""
    try:
        wall, processor = time.perf_counter(), time.process_time()
        for _ in range(inner):
            result = function()
        wait(result)
        spent = time.perf_counter() - wall, time.process_time() - processor
    except (torch.OutOfMemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemory from None
    return Seconds(spent[0] / inner, spent[1] / inner)


def in_turn(sides: Mapping[str, Side], repeats: int, inner: int) -> dict[str, Seconds | None]:
    """The fastest of `repeats` turns of every side, after one that does not count; None for one that did not fit."""
    best: dict[str, Seconds | None] = {}
    for repeat in range(1 + repeats):
        for name, (function, wait) in sides.items():
            if repeat and best[name] is None:
                continue
            try:
                spent = turn(function, wait, inner)
            except OutOfMemory:
                best[name] = None
                continue
            before = best.get(name)
            counts = repeat > 1 and before is not None
            best[name] = Seconds(*map(min, before, spent)) if counts and before is not None else spent
    return best


def memory(function: Callable[[], Any], wait: Callable[[Any], None]) -> float:
    """GiB by which the resident memory of this process rises during one call, at most (Linux)."""
    gc.collect()
    # What earlier calls have freed and the C library has kept would hide as much of this one.
    ctypes.CDLL(None).malloc_trim(0)
    # Sets the peak to what is held now.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    wait(function())
    return resident("VmHWM") - before


def resident(name: str) -> float:
    """Resident memory of this process in GiB: ``VmRSS`` now, ``VmHWM`` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 2**20
