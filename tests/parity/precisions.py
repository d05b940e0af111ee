"""Whole networks run in float32 and in float64, each case in both; what takes long is not run by default."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

# One worker runs them all when tests are spread over workers, so that memory is that of one.
ONE_WORKER = pytest.mark.xdist_group("networks")


def runs(
    paths: Iterable[Path], slow: Callable[[Path, str], bool], kind: Callable[[Path], str] = lambda path: ""
) -> Iterator[Any]:
    """Parameters ``path, dtype`` of a test: each case in both precisions.

    Where `slow` says so, float64, the judge, is marked slow, and float32 thorough. Of the others the first of each kind
    and precision runs by default; the rest is slow, too.
    """
    seen = set()
    for path in paths:
        for dtype in ("float32", "float64"):
            marks = [ONE_WORKER]
            if slow(path, dtype):
                marks.append(pytest.mark.slow if dtype == "float64" else pytest.mark.thorough)
            elif (kind(path), dtype) in seen:
                marks.append(pytest.mark.slow)
            else:
                seen.add((kind(path), dtype))
            yield pytest.param(path, dtype, marks=marks, id=f"{path.stem}-{dtype}")


def forget() -> None:
    """What one case compiled and kept must not add up over the cases."""
    jax.clear_caches()
    gc.collect()
