"""The schema of configs: type and range of every key, beside the configs that say what the keys mean.

``common`` has the sections that all systems share (``configs/common.py``), and a module for each method its own
(``configs/systems/NAME.py``). A method without such a module is held to the common sections alone.
`mmreid_jax.validation` checks a whole config by them.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from mmreid_jax.settings import common
from mmreid_jax.settings.kinds import Section


def sections_of(method: str) -> dict[str, Section]:
    """Dotted name of a section (``mtt.optim``; "" for what stands in none) -> its keys, for the configs of a method."""
    return {"": common.TOP, **common.SECTIONS, **_of_method(method, "SECTIONS", {})}


def weights_of(method: str) -> tuple[str, ...]:
    """Keys of ``config.loss`` that weigh its terms."""
    return tuple(_of_method(method, "WEIGHTS", ()))


def released_of(method: str, dataset: str) -> dict[str, Any]:
    """Dotted key -> value that the released program of a method chose, on a data set."""
    choices = _of_method(method, "RELEASED", {})
    return {**choices.get("", {}), **choices.get(dataset.partition("/")[0], {})}


def _of_method(method: str, name: str, otherwise: Any) -> Any:
    """A value of the module of a method, or something else where it has none."""
    module = f"{__name__}.{method}"
    if not isinstance(method, str) or not method.isidentifier() or importlib.util.find_spec(module) is None:
        return otherwise
    return getattr(importlib.import_module(module), name, otherwise)
