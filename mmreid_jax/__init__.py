"""JAX/Flax library for multi-modal person and vehicle re-identification.

What a program may rely on is in ``__all__``. Nothing is imported before it is asked for, so that ``import mmreid_jax``
takes no time. Some functions (``train``, ``evaluate``, ``datasets``, ...) have the names of modules of this package;
``mmreid_jax.train`` is then the module, and can be called. There is one object of that name, whatever was imported
first. The functions themselves, with their descriptions, are those of `mmreid_jax.api`.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmreid_jax import data as data
    from mmreid_jax import losses as losses
    from mmreid_jax import models as models
    from mmreid_jax import retrieval as retrieval
    from mmreid_jax.api import adapt, convert, datasets, evaluate, load, methods, prepare, prepare_own, train
    from mmreid_jax.errors import UserError
    from mmreid_jax.model import Model
    from mmreid_jax.retrieval.matches import Matches
    from mmreid_jax.retrieval.metrics import Labels

__version__ = "0.1.0"
__all__ = [
    "Labels",
    "Matches",
    "Model",
    "UserError",
    "adapt",
    "convert",
    "data",
    "datasets",
    "evaluate",
    "load",
    "losses",
    "methods",
    "models",
    "prepare",
    "prepare_own",
    "retrieval",
    "train",
]

_CALLABLE = ("adapt", "convert", "datasets", "evaluate", "methods", "train")
"""Modules of this package that can be called like the function of `mmreid_jax.api` whose name they have."""
_HOMES = {
    "Labels": "retrieval.metrics",
    "Matches": "retrieval.matches",
    "Model": "model",
    "UserError": "errors",
    "load": "api",
    "prepare": "api",
    "prepare_own": "api",
}
"""Other names that are no modules -> the module that defines them."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Callable(ModuleType):
    """A module that stands for the function of its name, too."""

    def _function(self) -> Any:
        return getattr(importlib.import_module("mmreid_jax.api"), self.__name__.rpartition(".")[2])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function of `mmreid_jax.api` that has the name of this module."""
        return self._function()(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function())


class _Package(ModuleType):
    """This package: the import system sets each of its modules as an attribute here, when it is first imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _CALLABLE and type(value) is ModuleType:
            value.__class__ = _Callable
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
