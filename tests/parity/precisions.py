"""Whole networks run in float32 and in float64; which of the two also runs by default is decided here.

Every case file has at least one run that is not marked slow.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

# One worker runs them all when tests are spread over workers: two at a time would need twice the memory.
ONE_WORKER = pytest.mark.xdist_group("networks")


def runs(paths: Iterable[Path], slow: Callable[[Path, str], bool]) -> Iterator[Any]:
    """Parameters ``path, dtype`` of a test: each case in both precisions, marked slow where `slow` says so."""
    for path in paths:
        marks = {dtype: [ONE_WORKER, pytest.mark.slow][: 1 + slow(path, dtype)] for dtype in ("float32", "float64")}
        assert any(len(each) == 1 for each in marks.values()), f"{path.stem} has no run by default"
        for dtype, each in marks.items():
            yield pytest.param(path, dtype, marks=each, id=f"{path.stem}-{dtype}")


def forget() -> None:
    """What one case compiled and kept must not add up over the cases."""
    jax.clear_caches()
    gc.collect()
