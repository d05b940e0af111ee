"""Data sets: one file each, with a value ``DATASET`` that says all there is to say; and what is done with any of them.

A data set of one's own is a module that anybody can import, ``config.data.dataset = "my_package.my_set"``, or a folder
of images or a table that was prepared under a name, ``"own:NAME"`` (`mmreid_jax.datasets.own`).
"""

from __future__ import annotations

import difflib
import functools
import importlib
import os
import re
import sys
from importlib import resources

from mmreid_jax.datasets.base import Dataset, Known
from mmreid_jax.datasets.own import description
from mmreid_jax.datasets.own.description import is_own
from mmreid_jax.errors import UserError
from mmreid_jax.paths import default_data_dir
from mmreid_jax.retrieval import protocols as rules
from mmreid_jax.retrieval.distances import Kind
from mmreid_jax.retrieval.protocols import Protocol

__all__ = [
    "ALL_PROTOCOLS",
    "Dataset",
    "Known",
    "get",
    "is_own",
    "names",
    "parts",
    "protocol",
    "protocols",
    "usual_distance",
]

ALL_PROTOCOLS = "all"
"""Value of ``config.eval.protocol`` for every protocol of the data set."""


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


def get(name: str, data_dir: str | os.PathLike[str] = "") -> Dataset:
    """The data set that a name stands for.

    Args:
      name: one of `names`, or a module of one's own, ``my_package.my_set``; where a data set has parts, with one of
        them (``regdb/trial_3``), without the first is meant. ``own:NAME`` is what ``prepare --folder`` or ``--csv`` has
        made, and lies with its records.
      data_dir: folder of prepared data sets, where one of ``own:`` is looked for; "" for the usual one.

    Raises:
      UserError: there is none of that name, or it does not say what the program needs.
    """
    if is_own(name):
        return description.find(name, data_dir or default_data_dir())
    base, slash, part = name.partition("/")
    dataset = _defined(base)
    if slash and part not in dataset.parts:
        known = dataset.parts
        choice = f"it is one of {base}/{known[0]} ... {base}/{known[-1]}" if known else f"{base} has no parts"
        raise UserError(f"there is no data set {name[:60]!a}; {choice}")
    return dataset.of_part(part or dataset.parts[0]) if dataset.parts else dataset


def protocol(name: str, dataset: str = "", data_dir: str | os.PathLike[str] = "") -> Protocol:
    """An evaluation protocol.

    Args:
      name: its own.
      dataset: that it is to be used on, also one of one's own; "" for any.
      data_dir: see `get`.

    Raises:
      UserError: there is none of that name, or it is of other data sets.
    """
    fitting = dict(rules.GENERAL) | _of(get(dataset, data_dir)) if dataset else protocols()
    if name in fitting:
        return fitting[name]
    owners = [other for other in names() if name in _of(get(other))]
    if owners:
        raise UserError(
            f"protocol {name!r} fits {', '.join(owners)}, but not {dataset}; choose one of {', '.join(fitting)}"
        )
    raise UserError(f"unknown protocol {name[:60]!a}; choose one of {', '.join(fitting)}")


def protocols() -> dict[str, Protocol]:
    """Every protocol by name: those that belong to no data set, and those of the data sets of this library."""
    known = dict(rules.GENERAL)
    for name in names():
        known |= _of(get(name))
    return known


def usual_distance(dataset: str) -> Kind:
    """How the first protocol of a data set compares features; those of ``own:NAME`` need not be there to know it."""
    return description.DISTANCE if is_own(dataset) else get(dataset).protocols[0].distance


def _of(dataset: Dataset) -> dict[str, Protocol]:
    return {each.name: each for each in (*dataset.protocols, *dataset.peculiar_protocols)}


@functools.cache
def _defined(base: str) -> Dataset:
    """The ``DATASET`` of a module, checked."""
    words = base.split(".")
    # A model of somebody else's names its data set: what Python brings is none, and is not run for it.
    if len(words) > 1 and all(map(str.isidentifier, words)) and words[0] not in sys.stdlib_module_names:
        module = base
    elif base in names():
        module = f"{__name__}.{base}"
    else:
        near = difflib.get_close_matches(base.lower(), names(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(
            f"there is no data set {base[:60]!a}; {hint}known are {', '.join(names())}, and modules of one's own that "
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
