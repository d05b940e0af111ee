"""Reads PyTorch checkpoints and safetensors files without PyTorch.

Formats, told apart by their first bytes: the zip archive (PyTorch 1.6 and later, TorchScript), the legacy stream
(before 1.6, or ``_use_new_zipfile_serialization=False``), a plain pickle (`archive`), and safetensors
(`safetensors_file`). Only tensors (as numpy arrays; bfloat16 becomes float32), containers, numpy arrays and scalars and
Python scalars are built. Objects of other classes become inert placeholders, tensors of other kinds are named where
they are asked for, and nothing is executed (see `pickles`). Files are memory-mapped: opening a large one costs little,
and what any file may cost is bounded (see `budget`).

Reference: ``torch/serialization.py`` and ``torch/_utils.py`` of PyTorch.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
import pathlib
import stat
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mmreid_jax.convert import archive, folders, safetensors_file
from mmreid_jax.convert.budget import Budget, Excessive
from mmreid_jax.convert.pickles import Damaged, Placeholder, Refused, Unsupported
from mmreid_jax.errors import UserError, printable

# Where checkpoints keep their state_dict, the likeliest first.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "backbone", "student", "teacher")
# Prefixes that wrappers around a network leave in front of every name.
PREFIXES = ("module.", "_orig_mod.")

_DEEPEST_WRAPPING = 3
_MOST_PREFIXES = 8
_LONGEST_NAME = 512
# What a file that is no checkpoint often is instead: its first bytes -> what to say.
_IMPOSTORS = (
    (b"<", "a web page: the download failed"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the real file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"BZh", "a bzip2 archive: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"\x93NUMPY", "a numpy array"),
)

Path = str | os.PathLike[str]


@dataclasses.dataclass
class StateDict:
    """The weights in a file.

    Attributes:
      entries: parameter and buffer name -> array (read-only views of the file where its types allow).
      under: key of the file that they lie under, joined by dots where nested; None: top level.
      notes: what was passed over or renamed.
      unreadable: name -> what it is, of tensors of kinds that are not read; an error only where one is needed.
    """

    entries: dict[str, np.ndarray]
    under: str | None
    notes: list[str]
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)


def read(path: Path) -> Any:
    """Everything in a checkpoint: dicts, lists, scalars, and tensors as read-only numpy arrays.

    Raises:
      UserError: there is no such file, it is damaged, no checkpoint, hostile, or unfolds to much more than its size.
    """
    resolved = folders.resolve(pathlib.Path(path))
    if isinstance(resolved, folders.Shards):
        return _read_shards(resolved, Budget.of(sum(map(_size, resolved.files))))
    return _read(resolved, Budget.of(_size(resolved)))


def _read_shards(shards: folders.Shards, budget: Budget) -> dict[str, Any]:
    """The tensors of several files in one dictionary."""
    whole: dict[str, Any] = {}
    for file, names in shards.files.items():
        part = _children(_read(file, budget))
        if absent := [name for name in names if name not in part]:
            raise UserError(
                f"{file} lacks {printable(absent[0])}, which {shards.index.name} says it holds; fetch both again"
            )
        whole.update((name, part[name]) for name in names)
    return whole


def _read(path: pathlib.Path, budget: Budget) -> Any:
    data = _open(path)
    try:
        if archive.is_zip(data):
            return archive.read_zip(path, data, budget)
        if archive.is_legacy(data):
            return archive.read_legacy(path, data, budget)
        if safetensors_file.is_safetensors(data):
            return safetensors_file.read_safetensors(path, data, budget)
        if archive.is_pickle(data):
            return archive.read_pickle(data, budget)
    except Refused as error:
        raise UserError(_refusal(path, str(error), _looks_like_module(data))) from error
    except Excessive as error:
        raise UserError(_excess(path, len(data), error)) from error
    except Damaged as error:
        raise UserError(f"{path} ({len(data):,} bytes) is damaged: {error}; download or copy it again") from error
    raise UserError(_not_a_checkpoint(path, data))


def state_dict(path: Path, under: str | None = None) -> StateDict:
    """The state_dict of a checkpoint, at top level or under one of the usual keys, without ``module.`` prefixes.

    Args:
      path: a PyTorch or safetensors file, the index of several, or a folder of Hugging Face's.
      under: key that it lies under, dots between nested keys, numbers in lists; None: found by `WRAPPERS`.

    Raises:
      UserError: as `read`; or the file holds no state_dict, or several and none under a usual key.
    """
    states = state_dicts(path, under)
    if len(states) > 1:
        names = ", ".join(printable(each.under) for each in states[:8])
        raise UserError(f"{path} holds several state_dicts ({names}); name the one to read with --under")
    return states[0]


def state_dicts(path: Path, under: str | None = None) -> list[StateDict]:
    """The state_dict that `state_dict` gives, or all between which the file leaves the choice open.

    Raises:
      UserError: as `read`; or there is none.
    """
    path = pathlib.Path(path)
    resolved = folders.resolve(path)
    size = sum(map(_size, resolved.files if isinstance(resolved, folders.Shards) else [resolved]))
    budget = Budget.of(size)
    content = _read_shards(resolved, budget) if isinstance(resolved, folders.Shards) else _read(resolved, budget)
    try:
        if under is not None:
            return [_collect(path, size, _descend(path, content, under), under, [])]
        search = _Search(budget)
        keys: list[str] = []
        notes: list[str] = []
        while len(keys) < _DEEPEST_WRAPPING and (inner := search.inside(content)):
            usual = [key for key in WRAPPERS if key in inner]
            if usual:
                if others := [key for key in inner if key != usual[0] and search.is_state(_children(content)[key])]:
                    notes.append(f"read {usual[0]!r}; the file also holds {', '.join(map(printable, others[:8]))}")
            elif search.is_state(content):
                break
            elif len(inner) > 1:
                children = _children(content)
                return [
                    _collect(path, size, value, ".".join([*keys, key, *more]), [*notes])
                    for key in inner[:8]
                    for value, more in [search.innermost(children[key])]
                ]
            chosen = usual[0] if usual else inner[0]
            keys.append(chosen)
            content = _children(content)[chosen]
        return [_collect(path, size, content, ".".join(keys) or None, notes)]
    except Excessive as error:
        raise UserError(_excess(path, size, error)) from error


def _collect(path: Path, size: int, content: Any, under: str | None, notes: list[str]) -> StateDict:
    """A dictionary's tensors, without the prefixes that all names share."""
    items = _children(content) if not isinstance(content, list | tuple) else {}
    entries = {name: value for name, value in items.items() if isinstance(value, np.ndarray)}
    unreadable = {name: value.what for name, value in items.items() if isinstance(value, Unsupported)}
    if not entries:
        raise UserError(_no_state_dict(path, content, unreadable))
    if long := next((name for name in items if len(name) > _LONGEST_NAME), None):
        raise UserError(
            f"{path} holds a name of {len(long):,} characters ({printable(long)}); no network has such names"
        )
    if sum(value.nbytes for value in entries.values()) > Budget.of(size).memory:
        raise UserError(_excess(path, size, Excessive("memory")))
    others = [name for name in items if name not in entries and name not in unreadable]
    if others:
        some = ", ".join(map(printable, others[:4]))
        notes.append(f"passed over, as no tensors: {some}{' ...' if len(others) > 4 else ''}")
    for _ in range(_MOST_PREFIXES):
        names = [*entries, *unreadable]
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in names)), None)
        if prefix is None:
            break
        entries = {name[len(prefix) :]: value for name, value in entries.items()}
        unreadable = {name[len(prefix) :]: what for name, what in unreadable.items()}
        notes.append(f"prefix {prefix!r} removed")
    return StateDict(entries, under, notes, unreadable)


# --------------------------------------------------------------------------------------------- finding state_dicts


def _children(content: Any) -> dict[str, Any]:
    """What lies in a container under names: entries of dictionaries with text keys, items of lists by their number."""
    if isinstance(content, Placeholder):
        content = content.items
    if isinstance(content, dict):
        return {key: value for key, value in content.items() if isinstance(key, str)}
    if isinstance(content, list | tuple):
        return {str(number): value for number, value in enumerate(content[:64])}
    return {}


class _Search:
    """Looks for state_dicts, at each container once."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        # The containers stay referenced, so that their numbers stay theirs.
        self._known: dict[int, tuple[Any, bool]] = {}

    def is_state(self, value: Any) -> bool:
        """Whether it holds tensors by name."""
        if isinstance(value, Placeholder):
            value = value.items
        if not isinstance(value, dict):
            return False
        if id(value) not in self._known:
            self.budget.pay(200, len(value))
            named = any(
                isinstance(key, str) and isinstance(entry, np.ndarray | Unsupported) for key, entry in value.items()
            )
            self._known[id(value)] = value, named
        return self._known[id(value)][1]

    def inside(self, content: Any) -> list[str]:
        """The keys under which a state_dict lies, or a wrapper of one."""
        self.budget.pay(0, len(content) if isinstance(content, dict | list | tuple) else 1)
        return [key for key, value in _children(content).items() if self._holds_state(value)]

    def _holds_state(self, value: Any) -> bool:
        if self.is_state(value):
            return True
        entries = value.items if isinstance(value, Placeholder) else value
        return isinstance(entries, dict) and any(self.is_state(entries.get(key)) for key in WRAPPERS)

    def innermost(self, value: Any) -> tuple[Any, list[str]]:
        """The state_dict that a value is or wraps, and the keys to it."""
        if self.is_state(value):
            return value, []
        children = _children(value)
        key = next(key for key in WRAPPERS if self.is_state(children.get(key)))
        return children[key], [key]


def _descend(path: Path, content: Any, under: str) -> Any:
    """What lies under nested keys, which may have dots of their own."""
    rest: str | None = under
    while rest is not None:
        children = _children(content)
        fitting = [key for key in _heads(rest) if key in children]
        if not fitting:
            raise UserError(f"{path} has nothing under {printable(under)!r}; its keys are {_keys(content)}")
        content = children[fitting[0]]
        rest = rest[len(fitting[0]) + 1 :] if len(fitting[0]) < len(rest) else None
    return content


def _heads(dotted: str) -> Iterator[str]:
    """``a.b.c``, ``a.b``, ``a``."""
    yield dotted
    while "." in dotted:
        dotted = dotted.rpartition(".")[0]
        yield dotted


def _keys(content: Any) -> str:
    if isinstance(content, Placeholder):
        content = content.items
    if isinstance(content, list | tuple):
        return f"numbers from 0 to {len(content) - 1}"
    if not isinstance(content, dict):
        return f"none, it is {_describe(content)}"
    return ", ".join(printable(key) for key in list(content)[:8]) + (" ..." if len(content) > 8 else "")


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        return f"a dictionary with the keys {_keys(content)}" if content else "an empty dictionary"
    if isinstance(content, np.ndarray):
        return f"one array of shape {list(content.shape)}"
    if isinstance(content, Unsupported):
        return content.what
    return f"a {type(content).__name__}"


def _no_state_dict(path: Path, content: Any, unreadable: Mapping[str, str]) -> str:
    """Why there is nothing to read: a tensor of another kind, a placeholder, or something else altogether."""
    if unreadable:
        name, what = next(iter(unreadable.items()))
        return _refusal(path, f"{printable(name)}, {what}")
    values = [content, *list(_children(content).values())[:1000]]
    placeholders = [value for value in values if isinstance(value, Placeholder)]
    if placeholders:
        chosen = next((each for each in placeholders if each.is_module), placeholders[0])
        return _refusal(path, chosen.name, chosen.is_module)
    return f"{path} holds no state_dict: it is {_describe(content)}"


# ------------------------------------------------------------------------------------------------------ the bytes


def _size(path: pathlib.Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def _open(path: pathlib.Path) -> mmap.mmap:
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):
            raise UserError(f"{path} is a pipe or a device; give a PyTorch or safetensors file")
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise UserError(f"{path} is empty (0 bytes): download or copy it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _not_a_checkpoint(path: pathlib.Path, data: mmap.mmap) -> str:
    start = bytes(data[:32])
    if bytes(data[257:262]) == b"ustar":
        return f"{path} is a tar archive; unpack it, or save a checkpoint of that age again with a later PyTorch"
    guess = next((words for magic, words in _IMPOSTORS if start.lstrip().startswith(magic)), None)
    looks = f" (it looks like {guess})" if guess else ""
    return f"{path} is not a checkpoint{looks}: it has {len(data):,} bytes and starts with {start!r}"


def _looks_like_module(data: mmap.mmap) -> bool:
    return data.find(b"_parameters") >= 0 and data.find(b"_modules") >= 0


def _excess(path: Path, size: int, error: Excessive) -> str:
    return f"{path} ({size:,} bytes) is refused: reading it takes far more {error} than any checkpoint of its size"


def _refusal(path: Path, name: str, whole_module: bool = False) -> str:
    if whole_module or name.startswith("torch.nn.modules."):
        return (
            f"{path} holds a whole module ({printable(name)}), which only its code could rebuild; its state_dict is "
            f"needed: torch.save(model.state_dict(), ...)"
        )
    return (
        f"{path} asks for {printable(name)}, which is refused: only tensors, arrays, numbers, text and containers are "
        f"read, and nothing in a file is executed; save the state_dict alone, with torch.save"
    )
