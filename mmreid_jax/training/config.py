"""Configs: a config can be checked, printed, hashed and compared.

A config is an ``ml_collections.ConfigDict`` (any nested mapping does). A dotted key, ``optim.lr``, names a value in it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.paths import path_of


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known dotted key that somebody who wrote `name` most likely meant; None where nothing is similar.

    A key whose last part is `name`'s last part, or is what that is short for, comes first: ``lr`` and
    ``learning_rate`` mean ``optim.lr``.
    """
    keys, leaf = sorted(known), name.split(".")[-1]
    short = "".join(word[:1] for word in leaf.split("_")) if "_" in leaf else leaf
    same_leaf = [key for key in keys if key.split(".")[-1] in (leaf, short)]
    close = difflib.get_close_matches(name, same_leaf or keys, n=1, cutoff=0.0 if same_leaf else 0.6)
    if close:
        return close[0]
    leaves = {key.split(".")[-1]: key for key in reversed(keys)}
    close = difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.7)
    return leaves[close[0]] if close else None


PATHS = (
    *("data.data_dir", "data.manual_dir", "data.train_list"),
    *("init.backbone", "init.checkpoint", "init.clip", "init.from_base", "init.from_mmgl"),
)
"""Keys whose values are paths."""


def expand_paths(config: Any) -> Any:
    """The same config, in whose paths ``~`` is a home: a shell leaves it in ``--config.data.data_dir=~/data``."""
    for key in PATHS:
        section, name = key.split(".")
        if str(config.get(section, {}).get(name, "")).startswith("~"):
            config[section][name] = str(path_of(config[section][name]))
    return config


def check_keys(section: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Raises a `UserError` naming the first key of `section` that is not among `known`, and the nearest one that is.

    Args:
      section: part of a config.
      known: the keys it may have.
      where: name of the section for the message, ``optim``.
    """
    for key in section:
        if key not in known:
            raise UserError(unknown_key(f"config.{where}.{key}", nearest(key, known), f"config.{where}.", known))


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value for every value of a nested config (a ConfigDict lists its keys in alphabetical order)."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) or hasattr(value, "to_dict"):
            flat.update({f"{key}.{inner}": v for inner, v in flatten(value).items()})
        else:
            flat[str(key)] = value
    return flat


def to_json(config: Mapping[str, Any], indent: int | None = 2) -> str:
    """The config as JSON with sorted keys; tuples become lists, numpy values numbers.

    Raises:
      TypeError: a value that JSON has no form for.
    """
    plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return json.dumps(plain, indent=indent, sort_keys=True, default=_plain)


def fingerprint(config: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that are equal for equal configs, whatever the order of keys."""
    return hashlib.sha256(to_json(config, indent=None).encode()).hexdigest()[:12]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What changed from one config to another, one line per key: ``optim.lr: 0.008 -> 0.01``; tuples equal lists."""
    before, after = (flatten(json.loads(to_json(config))) for config in (old, new))
    absent = object()
    lines = []
    for key in {**before, **after}:
        a, b = before.get(key, absent), after.get(key, absent)
        if a != b:
            lines.append(f"{key}: {'absent' if a is absent else repr(a)} -> {'absent' if b is absent else repr(b)}")
    return lines


def check_batch(
    identity: np.ndarray,
    *,
    identities_per_batch: int,
    images_per_identity: int,
    devices: int = 1,
    micro_batches: int = 1,
    name: str = "the training split",
) -> list[str]:
    """Checks the P x K batch of a config against the training data and the machine.

    Args:
      identity: int [N], identity of every training sample.
      identities_per_batch: P.
      images_per_identity: K.
      devices: number of devices that share a batch.
      micro_batches: number of parts into which the batch is cut.
      name: of the data, for messages.

    Returns:
      Sentences worth printing about a batch that works but surprises.

    Raises:
      UserError: the batch cannot be drawn, cut or spread; says what to change.
    """
    p, k = identities_per_batch, images_per_identity
    for key, value in (
        ("identities_per_batch", p),
        ("images_per_identity", k),
        ("micro_batches", micro_batches),
    ):
        if value < 1:
            raise UserError(f"config.train.{key} is {value}; it must be at least 1")
    counts = np.unique(np.asarray(identity), return_counts=True)[1]
    if len(counts) < p:
        raise UserError(
            f"config.train.identities_per_batch is {p}, but {name} has {len(counts)} identities; "
            f"set --config.train.identities_per_batch to {len(counts)} or less"
        )
    batch = p * k
    if batch % micro_batches:
        raise UserError(
            f"a batch of {p} x {k} = {batch} images cannot be cut into {micro_batches} equal parts; "
            f"choose config.train.micro_batches among the divisors of {batch}"
        )
    if (batch // micro_batches) % devices:
        raise UserError(
            f"a batch of {p} x {k} = {batch} images in {micro_batches} part(s) cannot be spread over "
            f"{devices} devices; choose identities_per_batch x images_per_identity as a multiple of "
            f"{micro_batches * devices}, or use fewer devices"
        )
    notes = []
    few = int(np.sum(counts < k))
    if few:
        notes.append(f"{few} of {len(counts)} identities of {name} have fewer than {k} images: theirs are repeated")
    if p == 1:
        notes.append("a batch holds one identity: losses that compare identities are zero")
    return notes


def unknown_key(name: str, close: str | None, prefix: str, known: Sequence[str]) -> str:
    """The sentence for an unknown key."""
    remedy = f"did you mean {prefix}{close}?" if close else f"there are {', '.join(known)}"
    return f"unknown key {name}; {remedy}"


def _plain(value: Any) -> Any:
    """A numpy value, a path or a nested config as JSON has it."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a config value of type {type(value).__name__} cannot be written as JSON: {value!r}")
