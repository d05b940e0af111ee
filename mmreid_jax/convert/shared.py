"""A trained model as a folder that can be passed on: ``config.json``, ``model.safetensors`` and a card.

The names of the arrays are their paths in our tree (``params/backbone/...``). Who gets the folder needs nothing else.
"""

from __future__ import annotations

import pathlib
from typing import Any

from mmreid_jax import owned
from mmreid_jax.convert import torch_file
from mmreid_jax.convert.layout import Variables, unflatten
from mmreid_jax.errors import UserError
from mmreid_jax.paths import read_json

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


def listed(folder: pathlib.Path) -> list[str] | None:
    """The files of a shared model that this program wrote; None where it did not write the folder."""
    try:
        facts = read_json(folder / CONFIG)
        ours = facts["written_by"] == owned.PROGRAM and {"config", "facts"} <= facts.keys()
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return [CONFIG, WEIGHTS, CARD] if ours else None


def is_shared(folder: pathlib.Path) -> bool:
    """Whether a directory is a shared model of this program."""
    return listed(folder) is not None


def load(folder: pathlib.Path) -> tuple[Variables, dict[str, Any]]:
    """Reads a shared model.

    Returns:
      Variables {"params", "batch_stats"} of numpy arrays, and what ``config.json`` says: ``config`` of the experiment,
      ``facts`` of its data and more.

    Raises:
      UserError: it is none, or damaged.
    """
    if not is_shared(folder):
        raise UserError(f"{folder} is no model that mmreid_jax export has written: {CONFIG} does not say so")
    states = torch_file.state_dicts(folder / WEIGHTS)
    if len(states) != 1 or states[0].unreadable:
        raise UserError(f"{folder / WEIGHTS} does not hold the arrays of one model; export it again")
    try:
        variables = unflatten(states[0].entries)
    except ValueError as error:
        raise UserError(f"{folder / WEIGHTS} does not hold the arrays of one model ({error})") from None
    return {"params": {}, "batch_stats": {}, **variables}, dict(read_json(folder / CONFIG))
