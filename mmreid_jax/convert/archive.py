"""The three forms of a PyTorch checkpoint: zip archive, legacy stream and plain pickle.

The zip archive is PyTorch's since 1.6, and TorchScript's; the legacy stream was written before, or is with
``_use_new_zipfile_serialization=False``. Reference: ``torch/serialization.py`` of PyTorch.
"""

from __future__ import annotations

import mmap
import pathlib
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmreid_jax.convert import pickles
from mmreid_jax.convert.budget import BoundedFile, Budget
from mmreid_jax.convert.pickles import Damaged, Name, Shell, Unsupported
from mmreid_jax.convert.tensors import Storages, itemsize, names, unchecked
from mmreid_jax.errors import UserError, printable

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_ZIP_START = b"PK\x03\x04"
# The list of an archive's records: some 120,000 of them, which Python's `zipfile` reads in two seconds.
_LONGEST_DIRECTORY = 8 << 20
_LONGEST_NAME = 512


def is_zip(data: mmap.mmap) -> bool:
    """Whether a file begins as a zip archive."""
    return bytes(data[:4]) == _ZIP_START


def is_legacy(data: mmap.mmap) -> bool:
    """Whether a file begins as PyTorch's legacy stream."""
    return data[:1] == b"\x80" and _LEGACY_MAGIC.to_bytes(10, "little") in bytes(data[:32])


def is_pickle(data: mmap.mmap) -> bool:
    """Whether a file begins as a pickle of protocol 2 or later."""
    return re.match(rb"\x80[\x02-\x05]", bytes(data[:2])) is not None


def read_pickle(data: mmap.mmap, budget: Budget) -> Any:
    """The content of a plain pickle."""
    return pickles.load(data, 0, names(Storages(len(data), budget)), budget)[0]


def read_zip(path: pathlib.Path, data: mmap.mmap, budget: Budget) -> Any:
    """The content of a zip checkpoint; of a TorchScript archive the tensors by their dotted names.

    Raises:
      UserError: it is another kind of archive.
      Damaged, Refused, Excessive: see `pickles.load`.
    """
    try:
        with BoundedFile(path, _LONGEST_DIRECTORY) as file, zipfile.ZipFile(file) as archive:
            records = {info.filename: info for info in archive.infolist()}
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, OSError, IndexError) as error:
        raise Damaged("it is a zip archive without its end, cut short perhaps") from error
    roots = [name for name in records if name.split("/")[1:] == ["data.pkl"]]
    if len(roots) != 1:
        holds = ", ".join(map(printable, list(records)[:4]))
        raise UserError(
            f"{path} is a zip archive but no PyTorch checkpoint (it holds {holds}); give the checkpoint itself"
        )
    prefix = roots[0].removesuffix("data.pkl")
    fetched: dict[str, memoryview | str] = {}
    taken = 0

    def record(name: str) -> memoryview | str:
        nonlocal taken
        if name not in fetched:
            info = records.get(prefix + name)
            if info is None:
                return f"its storage {printable(name.removeprefix('data/'))!r} is missing"
            # PyTorch never lets two records share bytes.
            taken += info.file_size
            if taken > len(data):
                raise Damaged("its storage overlaps others, to more than the size of the file")
            fetched[name] = _record(data, info)
        return fetched[name]

    storages = Storages(len(data), budget, lambda key: record(f"data/{key}"))
    order = record("byteorder") if prefix + "byteorder" in records else memoryview(b"little")
    storages.swapped = bytes(order[:8]) == b"big" if not isinstance(order, str) else False
    description = record("data.pkl")
    if isinstance(description, str):
        raise Damaged(description)
    known = names(storages)
    if prefix + "constants.pkl" not in records:
        return pickles.load(description, 0, known, budget, storages)[0]
    return _arrays_of_modules(pickles.load(description, 0, _ScriptNames(known), budget, storages)[0], budget)


def _record(data: mmap.mmap, info: zipfile.ZipInfo) -> memoryview | str:
    """The bytes of a record inside the map; PyTorch stores records uncompressed."""
    quoted = repr(printable(info.filename))
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        return f"record {quoted} is compressed or encrypted, which PyTorch never does"
    header = bytes(data[info.header_offset : info.header_offset + 30])
    if len(header) < 30 or not header.startswith(_ZIP_START):
        return f"record {quoted} is not where the archive says"
    name, extra = struct.unpack("<HH", header[26:30])
    start = info.header_offset + 30 + name + extra
    content = memoryview(data)[start : start + info.file_size]
    if len(content) != info.file_size:
        return f"record {quoted} is cut short"
    # PyTorch can be told to leave the check sums out.
    if info.CRC and zlib.crc32(content) != info.CRC:
        return f"record {quoted} has changed since it was written (wrong check sum)"
    return content


class _Module(Shell):
    """A module of a TorchScript archive: its attributes, without its code."""

    def fill(self, state: Any) -> dict[str, Any] | Unsupported:
        return state if isinstance(state, dict) else Unsupported("packed parameters of TorchScript")


class _ScriptNames(dict[str, Name]):
    """The names of a TorchScript archive: its module classes beside the usual ones."""

    def __init__(self, known: Mapping[str, Name]) -> None:
        super().__init__(known)
        for kind in ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist", "restore_type_tag"):
            name = f"torch.jit._pickle.{kind}"
            self[name] = Name(name, lambda value, *_: value)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or str(name).startswith("__torch__.")

    def __missing__(self, name: str) -> Name:
        return Name(name, _Module)


def _arrays_of_modules(top: Any, budget: Budget) -> dict[str, Any]:
    """The tensors of nested modules by their dotted names: what ``state_dict()`` of the TorchScript module gives."""
    tensors: dict[str, Any] = {}
    if not isinstance(top, dict):
        return tensors
    # Depth first, in order. `above` holds the modules on the way from the top, which one may not hold again.
    above: set[int] = {id(top)}
    levels = [("", iter(top.items()), id(top))]
    while levels:
        prefix, items, module = levels[-1]
        key, value = next(items, (None, None))
        if key is None and value is None:
            above.discard(module)
            levels.pop()
            continue
        text = key if isinstance(key, str) else printable(key)
        if len(prefix) + len(text) > _LONGEST_NAME:
            raise Damaged(f"a name of {len(prefix) + len(text):,} characters")
        budget.pay(200 + len(prefix) + len(text))
        name = f"{prefix}.{text}" if prefix else text
        if isinstance(value, np.ndarray | Unsupported):
            tensors[name] = value
        elif isinstance(value, dict):
            if id(value) in above:
                raise Damaged("its modules are nested without end")
            above.add(id(value))
            levels.append((name, iter(value.items()), id(value)))
    return tensors


def read_legacy(path: pathlib.Path, data: mmap.mmap, budget: Budget) -> Any:
    """The content of a legacy stream: magic number, protocol, its writer, the object, keys of storages, storages.

    Raises:
      UserError: it is big-endian.
      Damaged, Refused, Excessive: see `pickles.load`.
    """
    _, at = pickles.load(data, 0, {}, budget)
    protocol, at = pickles.load(data, at, {}, budget)
    facts, at = pickles.load(data, at, {}, budget)
    if type(protocol) is not int or protocol != _LEGACY_PROTOCOL or not isinstance(facts, dict):
        raise Damaged("its header makes no sense")
    if facts.get("little_endian", True) is False:
        raise UserError(f"{path} was written on a big-endian machine; save it again with PyTorch 1.6 or later")
    # The storages come last but the tensors are views of them: one pass to find them, one to build.
    survey = Storages(len(data), budget)
    _, end = pickles.load(data, at, unchecked(names(survey)), budget, survey)
    keys, end = pickles.load(data, end, {}, budget)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Damaged("its list of storages makes no sense")
    blocks: dict[str, memoryview] = {}
    whole = memoryview(data)
    for key in keys:
        if key not in survey.declared:
            raise Damaged(f"its storage {printable(key)!r} belongs to no tensor")
        element, _ = survey.declared[key]
        count = struct.unpack("<q", whole[end : end + 8])[0] if end + 8 <= len(data) else -1
        size = count * itemsize(element)
        if count < 0 or end + 8 + size > len(data):
            raise Damaged(
                f"it ends in the middle of storage {printable(key)!r}, number {len(blocks) + 1} of {len(keys)}"
            )
        blocks[key] = whole[end + 8 : end + 8 + size]
        end += 8 + size

    def fetch(key: str) -> memoryview | str:
        return blocks.get(key, f"its storage {printable(key)!r} is missing")

    storages = Storages(len(data), budget, fetch)
    return pickles.load(data, at, names(storages), budget, storages)[0]
