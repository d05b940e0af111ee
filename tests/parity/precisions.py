"""Whole networks run in float32 and in float64, each case in both; what takes long is marked slow."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

# One worker runs them all when tests are spread over workers, so that memory is that of one.
ONE_WORKER = pytest.mark.xdist_group("networks")


def runs(paths: Iterable[Path], slow: Callable[[Path, str], bool]) -> Iterator[Any]:
    """Parameters ``path, dtype`` of a test: each case in both precisions, marked slow where `slow` says so."""
    for path in paths:
        for dtype in ("float32", "float64"):
            marks = [ONE_WORKER, *([pytest.mark.slow] if slow(path, dtype) else [])]
            yield pytest.param(path, dtype, marks=marks, id=f"{path.stem}-{dtype}")


def forget() -> None:
    """What one case compiled and kept must not add up over the cases."""
    jax.clear_caches()
    gc.collect()
