"""Weights in several files: the folders of Hugging Face, and indices of sharded weights.

A folder holds ``model.safetensors`` or ``pytorch_model.bin``, or the index ``model.safetensors.index.json`` of shards
whose ``weight_map`` says which file has which tensor. Reference: the Hub's documentation of sharded safetensors.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib

from mmreid_jax.errors import UserError, printable

# What a folder of weights holds, the likeliest first.
WHOLE = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_LONGEST_INDEX = 16 << 20
# Each stays mapped, and a process has some 1,000 files.
_MOST_SHARDS = 500


@dataclasses.dataclass(frozen=True)
class Shards:
    """Files that hold one state_dict together.

    Attributes:
      index: the file that says so.
      files: file -> names of the tensors that it is asked for.
    """

    index: pathlib.Path
    files: dict[pathlib.Path, list[str]]


def is_folder_of_weights(path: pathlib.Path) -> bool:
    """Whether a directory holds weights as Hugging Face's libraries write them."""
    return os.path.isdir(path) and any((path / name).exists() for name in (*INDICES, *WHOLE))


def resolve(path: pathlib.Path) -> pathlib.Path | Shards:
    """The file, or the files, that a path to weights means.

    Raises:
      UserError: a directory without weights, or an index that makes no sense or lacks its files.
    """
    if os.path.isdir(path):
        present = next((path / name for name in (*INDICES, *WHOLE) if (path / name).exists()), None)
        if present is None:
            raise UserError(
                f"{path} is a directory without weights (none of {', '.join((*WHOLE, *INDICES))} is in it); give a "
                f"PyTorch or safetensors file"
            )
        path = present
    return _shards(path) if path.name.endswith(".json") and os.path.isfile(path) else path


def _shards(index: pathlib.Path) -> Shards:
    try:
        if index.stat().st_size > _LONGEST_INDEX:
            raise ValueError("it is too long")
        content = json.loads(index.read_bytes())
        table = content["weight_map"]
        if not isinstance(table, dict) or not table or not all(isinstance(file, str) for file in table.values()):
            raise ValueError("its weight_map is none")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{index} is no index of sharded weights ({printable(str(error))}); give the index or a weight file"
        ) from error
    files: dict[pathlib.Path, list[str]] = {}
    checked: dict[str, pathlib.Path] = {}
    for name, file in table.items():
        if file not in checked:
            checked[file] = _beside(index, file)
        files.setdefault(checked[file], []).append(name)
    if len(files) > _MOST_SHARDS:
        raise UserError(f"{index} names {len(files):,} files, more than any model has")
    return Shards(index, files)


def _beside(index: pathlib.Path, file: str) -> pathlib.Path:
    """A file in the folder of the index, and nowhere else."""
    plain = file not in ("", ".", "..") and not any(sign in file for sign in "/\\\0")
    if not plain or file.endswith(".json") or len(file) > 255:
        raise UserError(f"{index} names {printable(file)!r}, which is no weight file beside it")
    path = index.parent / file
    try:
        present = path.exists()
    except (OSError, ValueError):
        present = False
    if not present:
        raise UserError(f"{index} names {printable(file)}, which is not beside it; fetch all files of the model")
    return path
