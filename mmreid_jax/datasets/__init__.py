"""Data sets: one file each, with a value ``DATASET`` that says all there is to say; and what is done with any of them.

A data set of one's own is a module that anybody can import: ``config.data.dataset = "my_package.my_set"``.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import re
from importlib import resources

from mmreid_jax.datasets.base import Dataset, Known
from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import protocols as rules
from mmreid_jax.retrieval.protocols import Protocol

__all__ = ["Dataset", "Known", "get", "names", "parts", "protocol", "protocols"]


@functools.cache
def names() -> tuple[str, ...]:
    """Names of the data sets of this library: the modules of this package that define ``DATASET``."""
    files = sorted(resources.files(__name__).iterdir(), key=lambda file: file.name)
    texts = {file.name.removesuffix(".py"): file.read_text() for file in files if file.name.endswith(".py")}
    return tuple(name for name, text in texts.items() if re.search(r"^DATASET\b", text, re.MULTILINE))


def parts(name: str) -> tuple[str, ...]:
    """The full names of a data set that has several splits of its identities, as in ``regdb/trial_3``; else empty."""
    base = name.partition("/")[0]
    return tuple(f"{base}/{part}" for part in get(base).parts)


def get(name: str) -> Dataset:
    """The data set that a name stands for.

    Args:
      name: one of `names`, or a module of one's own, ``my_package.my_set``; where a data set has parts, with one of
        them (``regdb/trial_3``), without the first is meant.

    Raises:
      UserError: there is none of that name, or it does not say what the program needs.
    """
    base, slash, part = name.partition("/")
    dataset = _defined(base)
    if slash and part not in dataset.parts:
        known = dataset.parts
        choice = f"it is one of {base}/{known[0]} ... {base}/{known[-1]}" if known else f"{base} has no parts"
        raise UserError(f"there is no data set {name!r}; {choice}")
    return dataset.of_part(part or dataset.parts[0]) if dataset.parts else dataset


def protocol(name: str, dataset: str = "") -> Protocol:
    """An evaluation protocol.

    Args:
      name: its own.
      dataset: a data set of one's own whose protocols are looked through as well.

    Raises:
      UserError: there is none of that name.
    """
    known = protocols() | (_of(get(dataset)) if dataset else {})
    if name not in known:
        raise UserError(f"unknown protocol {name!r}; choose one of {', '.join(known)}")
    return known[name]


def protocols() -> dict[str, Protocol]:
    """Every protocol by name: those that belong to no data set, and those of the data sets of this library."""
    known = dict(rules.GENERAL)
    for name in names():
        known |= _of(get(name))
    return known


def _of(dataset: Dataset) -> dict[str, Protocol]:
    return {each.name: each for each in (*dataset.protocols, *dataset.peculiar_protocols)}


@functools.cache
def _defined(base: str) -> Dataset:
    """The ``DATASET`` of a module, checked."""
    if "." in base:
        module = base
    elif base in names():
        module = f"{__name__}.{base}"
    else:
        near = difflib.get_close_matches(base.lower(), names(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(
            f"there is no data set {base!r}; {hint}known are {', '.join(names())}, and modules of one's own that "
            "Python can import, my_package.my_set"
        )
    try:
        dataset = getattr(importlib.import_module(module), "DATASET", None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise UserError(
            f"there is no module {error.name} for the data set {base!r}; install the package, or name its folder in "
            "PYTHONPATH"
        ) from None
    if not isinstance(dataset, Dataset):
        raise UserError(f"the module {module} defines no DATASET of mmreid_jax.datasets.Dataset")
    dataset.check(base)
    return dataset
