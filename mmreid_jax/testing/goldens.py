"""The golden files: numbers of the authors' code that parity tests compare with.

The folder is the environment variable ``MMREID_GOLDENS`` if set, else ``tests/goldens`` of the repository. It holds one
folder per suite, with ``<case>.json`` and ``<case>.npz`` per case, and ``recipe.py``, which makes weights and inputs.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json as json_format
import os
import pathlib
from types import ModuleType
from typing import Any

import numpy as np


def folder() -> pathlib.Path:
    """The folder of all suites."""
    repository = pathlib.Path(__file__).resolve().parents[2]
    return pathlib.Path(os.environ.get("MMREID_GOLDENS") or repository / "tests" / "goldens")


def cases(suite: str) -> list[pathlib.Path]:
    """The case files of a suite, sorted; none where the folder lacks the suite."""
    return sorted((folder() / suite).glob("*.json"))


@dataclasses.dataclass(frozen=True)
class Case:
    """One case: its name, what its json says, and its arrays."""

    name: str
    path: pathlib.Path
    json: dict[str, Any]

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Arrays of the npz beside the json by key, read when first asked for; empty where there is none."""
        path = self.path.with_suffix(".npz")
        if not path.exists():
            return {}
        with np.load(path) as stored:
            return dict(stored)


def load(path: pathlib.Path) -> Case:
    """Reads a case file."""
    return Case(path.stem, path, json_format.loads(path.read_text(encoding="utf-8")))


@functools.cache
def _recipe_of(path: pathlib.Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("mmreid_goldens_recipe", path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recipe() -> ModuleType:
    """The module ``recipe.py`` of the folder: ``array``, ``integers``, ``image``, ``parameter``, ``state_dict``."""
    return _recipe_of(folder() / "recipe.py")


def close(actual: Any, expected: Any, relative_to_max: float = 1e-9, name: str = "array") -> None:
    """Asserts equal shapes and values equal within a fraction of the largest expected magnitude.

    Args:
      actual: array computed here.
      expected: golden array; integers and booleans must be equal.
      relative_to_max: allowed error over the largest magnitude of `expected`.
      name: what is compared, for the message.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{name}: shape {actual.shape}, expected {expected.shape}"
    if not expected.size:
        return
    if expected.dtype.kind in "iub":
        different = int((actual != expected).sum())
        assert not different, f"{name}: {different} of {expected.size} values differ"
        return
    wide, wanted = actual.astype(np.float64), expected.astype(np.float64)
    same = (wide == wanted) | (np.isnan(wide) & np.isnan(wanted))
    finite = np.isfinite(wide) & np.isfinite(wanted)
    unlike = int((~same & ~finite).sum())
    assert not unlike, f"{name}: {unlike} of {expected.size} values are not finite where the others are"
    scale = float(np.abs(wanted[finite]).max(initial=0.0))
    error = float(np.abs(wide[finite] - wanted[finite]).max(initial=0.0))
    assert error <= relative_to_max * scale, (
        f"{name}: largest error {error:.3g}, allowed {relative_to_max * scale:.3g} "
        f"({relative_to_max:.3g} of the largest value {scale:.3g})"
    )
