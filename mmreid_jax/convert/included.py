"""Weights that come with the package: ``drawn/NAME``, the trunks that `mmreid_jax.trunks` makes."""

from __future__ import annotations

import os
import pathlib

from mmreid_jax.errors import UserError

PREFIX = "drawn/"
FOLDER = pathlib.Path(__file__).parents[1] / "trunks" / "weights"


def names() -> tuple[str, ...]:
    """Names of all trunks that are there, prefix included."""
    return tuple(f"{PREFIX}{file.stem}" for file in sorted(FOLDER.glob("*.safetensors")))


def resolve(path: str | os.PathLike[str]) -> pathlib.Path:
    """The file that a name such as ``drawn/resnet_mini`` stands for; any other path as it is.

    A file or folder of that very path goes first.

    Raises:
      UserError: there is no trunk of that name.
    """
    text = os.fspath(path)
    if not text.startswith(PREFIX) or pathlib.Path(text).exists():
        return pathlib.Path(path)
    if text not in names():
        raise UserError(f"there is no trunk {text!r} in the package; there are {', '.join(names())}")
    return FOLDER / f"{text.removeprefix(PREFIX)}.safetensors"
