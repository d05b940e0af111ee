"""Reads PyTorch checkpoints and safetensors files without PyTorch.

Formats, told apart by their first bytes: the zip archive (PyTorch 1.6 and later, TorchScript), the legacy stream
(before 1.6, or ``_use_new_zipfile_serialization=False``), a plain pickle, and safetensors. Only tensors (as numpy
arrays; bfloat16 becomes float32), containers, numpy arrays and scalars and Python scalars are built. What asks for more
is refused, and nothing is executed (see `pickles`). Files are memory-mapped: opening a large one costs little.

Reference: ``torch/serialization.py`` and ``torch/_utils.py`` of PyTorch; the safetensors format description.
"""

from __future__ import annotations

import dataclasses
import json
import math
import mmap
import os
import pathlib
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmreid_jax.convert import pickles
from mmreid_jax.convert.pickles import Broken, Damaged, Name, Refused, Shell
from mmreid_jax.errors import UserError

# Where checkpoints keep their state_dict, the likeliest first.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "backbone", "student", "teacher")
# Prefixes that wrappers around a network leave in front of every name.
PREFIXES = ("module.", "_orig_mod.")

_DEEPEST_WRAPPING = 3

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_ZIP_START = b"PK\x03\x04"
# A view may be larger than its file (stride 0), but not by more than this: such files exist only to exhaust memory.
_VIEW_ALLOWANCE = 16 << 20
_LONGEST_HEADER = 100 << 20
_MOST_AXES = 32
_MOST_MODULES = 100_000
_LONGEST_NAME = 4096

# Names of PyTorch's element types: storage class, dtype, numpy's; bfloat16 is read as the upper half of float32.
_BFLOAT16 = "bfloat16"
_BYTES = "<u1"
_ELEMENTS = (
    ("HalfStorage", "float16", "<f2"),
    ("BFloat16Storage", "bfloat16", _BFLOAT16),
    ("FloatStorage", "float32", "<f4"),
    ("DoubleStorage", "float64", "<f8"),
    ("CharStorage", "int8", "<i1"),
    ("ByteStorage", "uint8", _BYTES),
    ("ShortStorage", "int16", "<i2"),
    ("IntStorage", "int32", "<i4"),
    ("LongStorage", "int64", "<i8"),
    ("BoolStorage", "bool", "|b1"),
    ("ComplexFloatStorage", "complex64", "<c8"),
    ("ComplexDoubleStorage", "complex128", "<c16"),
    (None, "uint16", "<u2"),
    (None, "uint32", "<u4"),
    (None, "uint64", "<u8"),
)
_SAFETENSORS = {
    "F16": "<f2",
    "BF16": _BFLOAT16,
    "F32": "<f4",
    "F64": "<f8",
    "I8": "<i1",
    "U8": "<u1",
    "I16": "<i2",
    "U16": "<u2",
    "I32": "<i4",
    "U32": "<u4",
    "I64": "<i8",
    "U64": "<u8",
    "BOOL": "|b1",
}
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
    """

    entries: dict[str, np.ndarray]
    under: str | None
    notes: list[str]


def read(path: Path) -> Any:
    """Everything in a checkpoint: dicts, lists, scalars, and tensors as read-only numpy arrays.

    Raises:
      UserError: there is no such file, it is damaged or no checkpoint, or it asks for something that is not built.
    """
    path = pathlib.Path(path)
    data = _open(path)
    start = bytes(data[:64])
    try:
        if start.startswith(_ZIP_START):
            return _read_zip(path, data)
        if start[:1] == b"\x80" and _LEGACY_MAGIC.to_bytes(10, "little") in start[:32]:
            return _read_legacy(path, data)
        if _is_safetensors(data):
            return _read_safetensors(data)
        if re.match(rb"\x80[\x02-\x05]", start):
            return pickles.load(data, 0, _names(_Storages(len(data))))[0]
    except Refused as error:
        raise UserError(_refusal(path, data, str(error))) from error
    except Damaged as error:
        raise UserError(f"{path} ({len(data):,} bytes) is damaged: {error}; download or copy it again") from error
    raise UserError(_not_a_checkpoint(path, data))


def state_dict(path: Path, under: str | None = None) -> StateDict:
    """The state_dict of a checkpoint, at top level or under one of the usual keys, without ``module.`` prefixes.

    Args:
      path: a PyTorch or safetensors file.
      under: key that it lies under, dots between nested keys; None: found by `WRAPPERS`.

    Raises:
      UserError: as `read`; or the file holds no state_dict, or several and none under a usual key.
    """
    content = read(path)
    notes: list[str] = []
    keys = under.split(".") if under else []
    for key in keys:
        if not isinstance(content, dict) or key not in content:
            raise UserError(f"{path} has nothing under {under!r}; its keys are {_keys(content)}")
        content = content[key]
    while under is None and len(keys) < _DEEPEST_WRAPPING and (inner := _wrapper(path, content, notes)) is not None:
        keys.append(inner)
        content = content[inner]
    if not isinstance(content, dict) or not _is_state(content):
        raise UserError(f"{path} holds no state_dict: it is {_describe(content)}")
    entries, others = {}, []
    for name, value in content.items():
        if isinstance(value, np.ndarray):
            entries[str(name)] = value
        else:
            others.append(str(name))
    if others:
        notes.append(f"passed over, as no tensors: {', '.join(others[:4])}{' ...' if len(others) > 4 else ''}")
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in entries)), None):
        entries = {name[len(prefix) :]: value for name, value in entries.items()}
        notes.append(f"prefix {prefix!r} removed")
    return StateDict(entries, ".".join(keys) or None, notes)


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and any(
        isinstance(key, str) and isinstance(entry, np.ndarray) for key, entry in value.items()
    )


def _wrapper(path: Path, content: Any, notes: list[str]) -> str | None:
    """The key of a dictionary under which the state_dict lies; None: it is (or holds) none to go into."""
    if not isinstance(content, dict):
        return None
    inside = [key for key, value in content.items() if isinstance(key, str) and _holds_state(value)]
    usual = [key for key in WRAPPERS if key in inside]
    if usual:
        if others := [key for key in inside if key != usual[0] and _is_state(content[key])]:
            notes.append(f"read {usual[0]!r}; the file also holds {', '.join(others)}")
        return usual[0]
    if _is_state(content) or not inside:
        return None
    if len(inside) > 1:
        raise UserError(f"{path} holds several state_dicts ({', '.join(inside[:8])}); name the one to read")
    return inside[0]


def _holds_state(value: Any) -> bool:
    return _is_state(value) or (isinstance(value, dict) and any(_is_state(value.get(key)) for key in WRAPPERS))


def _keys(content: Any) -> str:
    if not isinstance(content, dict):
        return f"none, it is {_describe(content)}"
    return ", ".join(str(key) for key in list(content)[:8]) + (" ..." if len(content) > 8 else "")


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        return f"a dictionary with the keys {_keys(content)}" if content else "an empty dictionary"
    if isinstance(content, np.ndarray):
        return f"one array of shape {list(content.shape)}"
    return f"a {type(content).__name__}"


# ------------------------------------------------------------------------------------------------------ the bytes


def _open(path: pathlib.Path) -> mmap.mmap:
    if path.is_dir():
        raise UserError(f"{path} is a directory; give a PyTorch or safetensors file")
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise UserError(f"{path} is empty (0 bytes): download or copy it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _not_a_checkpoint(path: pathlib.Path, data: mmap.mmap) -> str:
    start = bytes(data[:32])
    if bytes(data[257:262]) == b"ustar":
        return f"{path} is a tar archive; unpack it, or save a checkpoint of that age again with a later PyTorch"
    guess = next((words for magic, words in _IMPOSTORS if start.lstrip().startswith(magic)), None)
    looks = f" (it looks like {guess})" if guess else ""
    return f"{path} is not a checkpoint{looks}: it has {len(data):,} bytes and starts with {start!r}"


def _refusal(path: pathlib.Path, data: mmap.mmap, name: str) -> str:
    if name.startswith("torch.nn.modules.") or (data.find(b"_parameters") >= 0 and data.find(b"_modules") >= 0):
        return (
            f"{path} holds a whole module ({name}), which only its own code could rebuild; its state_dict is needed: "
            f"torch.save(model.state_dict(), ...)"
        )
    return (
        f"{path} asks for {name}, which is refused: only tensors, arrays, numbers, text and containers are read, and "
        f"nothing in a file is executed; save the state_dict alone"
    )


@dataclasses.dataclass
class _Storage:
    """A block of elements that tensors are views of; `data` is None where the file lacks it."""

    element: str
    numel: int
    data: np.ndarray | None
    why: str = ""


class _Storages:
    """The blocks of a file by key, each made once; `fetch` gives the bytes, or the words why it cannot."""

    def __init__(self, file_size: int, fetch: Callable[[str, int], memoryview | str] | None = None) -> None:
        self.limit = file_size + _VIEW_ALLOWANCE
        self.fetch = fetch
        self.swapped = False
        self.copied = 0
        self.declared: dict[str, tuple[str, int]] = {}
        self.made: dict[tuple[str, str], _Storage] = {}

    def __call__(self, reference: Any) -> _Storage:
        """A persistent id ("storage", class, key, device, count of elements, view or nothing) -> its storage."""
        if not (isinstance(reference, tuple) and len(reference) in (5, 6) and reference[0] == "storage"):
            whole_module = isinstance(reference, tuple) and reference[:1] == ("module",)
            raise Refused("torch.nn.modules.Module" if whole_module else "an object outside of the file")
        kind, key, numel = reference[1], reference[2], reference[4]
        element = _STORAGE_ELEMENTS.get(kind.name) if isinstance(kind, Name) else None
        if element is None or not isinstance(key, str) or not _is_count(numel):
            raise ValueError("a reference to no storage")
        if key not in self.declared:
            self.declared[key] = (element, numel)
        whole = self._whole(key, element, numel)
        view = reference[5] if len(reference) == 6 else None
        if view is None or whole.data is None:
            return whole
        _, offset, count = view
        if not (_is_count(offset) and _is_count(count)) or offset + count > numel:
            return _Storage(element, count, None, "its storage is a view that reaches beyond its block")
        return _Storage(element, count, whole.data[offset : offset + count])

    def _whole(self, key: str, element: str, numel: int) -> _Storage:
        if (key, element) not in self.made:
            self.made[key, element] = self._make(key, element, numel)
        found = self.made[key, element]
        if found.numel != numel:
            return _Storage(element, numel, None, f"its storage {key!r} is given two sizes")
        return found

    def _make(self, key: str, element: str, numel: int) -> _Storage:
        if self.fetch is None:
            return _Storage(element, numel, None, "not read yet")
        size = numel * _itemsize(element)
        found = self.fetch(key, size)
        if isinstance(found, str):
            return _Storage(element, numel, None, found)
        if len(found) != size:
            return _Storage(element, numel, None, f"its storage {key!r} has {len(found):,} bytes instead of {size:,}")
        return self.block(found, element)

    def block(self, raw: Any, element: str) -> _Storage:
        """Bytes as a storage; those that must be copied to be read are counted."""
        numel = len(raw) // _itemsize(element)
        if element == _BFLOAT16 or self.swapped:
            self.copied += 2 * len(raw)
            if self.copied > 2 * self.limit:
                return _Storage(element, numel, None, "its storage overlaps others, to more than the size of the file")
        return _Storage(element, numel, _elements(raw, element, self.swapped))


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _itemsize(element: str) -> int:
    return 2 if element == _BFLOAT16 else np.dtype(element).itemsize


def _elements(data: Any, element: str, swapped: bool = False) -> np.ndarray:
    """Bytes as a flat array; bfloat16 becomes float32."""
    if element != _BFLOAT16:
        array = np.frombuffer(data, element)
        return array.byteswap() if swapped else array
    upper = np.frombuffer(data, "<u2")
    return ((upper.byteswap() if swapped else upper).astype(np.uint32) << 16).view(np.float32)


# ------------------------------------------------------------------------------------------ what pickles may build


def _tensor(limit: int, storage: Any, offset: Any, size: Any, stride: Any) -> np.ndarray | Broken:
    """A view of a storage, with every index checked against its length."""
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    if not (isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= _MOST_AXES):
        raise ValueError("a tensor without a shape")
    if not all(map(_is_count, (offset, *size, *stride))):
        raise ValueError("a tensor whose shape is not made of counts")
    if storage.data is None:
        return Broken(storage.why)
    block, item = storage.data, storage.data.itemsize
    if math.prod(size) == 0:
        if max(size) * item > limit:
            return Broken(f"its shape {list(size)} is larger than the file")
        return np.empty(size, block.dtype)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if last >= len(block):
        return Broken(f"its last element is number {last:,} of a storage of {len(block):,}")
    if math.prod(size) * item > limit:
        return Broken(f"its shape {list(size)} is larger than the file")
    return np.ndarray(size, block.dtype, block.data, offset * item, tuple(step * item for step in stride))


class _DType(Shell):
    """numpy's dtype: its name first, its byte order later."""

    def __init__(self, name: Any, *_: Any) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"[<>=|]?([biufc][0-9]{1,2}|[SU][0-9]{1,6})", name):
            raise Refused(f"numpy arrays of type {name!r}")
        self.dtype = np.dtype(name)

    def fill(self, state: Any) -> np.dtype:
        order = state[1]
        if order not in ("<", ">", "=", "|"):
            raise ValueError("a dtype without byte order")
        return self.dtype if order == "|" else self.dtype.newbyteorder(order)


class _Array(Shell):
    """numpy's array: created empty, filled with (version, shape, dtype, column order, bytes)."""

    def fill(self, state: Any) -> np.ndarray:
        _, shape, dtype, columns, raw = state
        return _numpy(raw, dtype, shape, "F" if columns else "C")


def _numpy(raw: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray:
    raw = raw.encode("latin-1") if isinstance(raw, str) else raw
    dtype = dtype.dtype if isinstance(dtype, _DType) else dtype
    if not (isinstance(raw, bytes) and isinstance(dtype, np.dtype) and not dtype.hasobject and dtype.itemsize):
        raise Refused("numpy arrays of objects")
    if not (isinstance(shape, tuple) and all(map(_is_count, shape)) and order in ("C", "F")):
        raise ValueError("a numpy array without a shape")
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise Damaged(f"a numpy array of shape {list(shape)} has {len(raw):,} bytes")
    return np.frombuffer(raw, dtype).reshape(shape, order=order)


def _scalar(dtype: Any, raw: Any) -> Any:
    return _numpy(raw, dtype, ())[()]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("an unknown way of writing bytes")
    return text.encode("latin-1")


def _names(storages: _Storages) -> dict[str, Name]:
    """All that a checkpoint's pickle may name."""

    def tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
        return _tensor(storages.limit, storage, offset, size, stride)

    def typed_tensor(
        storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, kind: Any, *_: Any
    ) -> Any:
        element = _DTYPE_ELEMENTS.get(kind.name) if isinstance(kind, Name) else None
        if element is None or not isinstance(storage, _Storage) or storage.element != _BYTES:
            raise ValueError("a tensor without a type")
        if storage.data is None:
            return Broken(storage.why)
        if storage.numel % _itemsize(element):
            return Broken(f"its storage has {storage.numel:,} bytes, no multiple of its element's")
        return _tensor(storages.limit, storages.block(storage.data, element), offset, size, stride)

    def attributed(rebuild: Any, _kind: Any, arguments: Any, _state: Any) -> Any:
        if not (isinstance(rebuild, Name) and rebuild.call and rebuild.name.startswith("torch._utils._rebuild_")):
            raise Refused("a tensor subclass")
        return rebuild.call(*arguments)

    def first(value: Any, *_: Any) -> Any:
        return value

    def mapping(pairs: Any = ()) -> dict[Any, Any]:
        return pickles.dictionary(pairs)

    def array(*_: Any) -> _Array:
        return _Array()

    calls: dict[str, Callable[..., Any] | None] = {
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_tensor_v3": typed_tensor,
        "torch._utils._rebuild_parameter": first,
        "torch._utils._rebuild_parameter_with_state": first,
        "torch._tensor._rebuild_from_type_v2": attributed,
        "torch.Size": tuple,
        "torch.device": lambda *parts: parts,
        "collections.OrderedDict": mapping,
        "collections.Counter": mapping,
        "collections.defaultdict": lambda _factory=None, pairs=(): pickles.dictionary(pairs),
        "_codecs.encode": _encode,
        "numpy.dtype": _DType,
        "numpy.ndarray": None,
        "torch.Tensor": None,
        "torch._tensor.Tensor": None,
        "torch.nn.parameter.Parameter": None,
        **{name: None for name in (*_STORAGE_ELEMENTS, *_DTYPE_ELEMENTS)},
    }
    for module in ("numpy.core", "numpy._core"):
        calls[f"{module}.multiarray._reconstruct"] = array
        calls[f"{module}.multiarray.scalar"] = _scalar
        calls[f"{module}.numeric._frombuffer"] = _numpy
    for module in ("__builtin__", "builtins"):
        calls[f"{module}.set"] = pickles.members(set)
        calls[f"{module}.frozenset"] = pickles.members(frozenset)
        calls[f"{module}.complex"] = complex
        # As the factory of a defaultdict.
        calls[f"{module}.dict"] = calls[f"{module}.list"] = None
    return {name: Name(name, call) for name, call in calls.items()}


_STORAGE_ELEMENTS = {
    **{f"torch.{storage}": element for storage, _, element in _ELEMENTS if storage},
    # Its count is one of bytes; the tensor brings the type.
    "torch.storage.UntypedStorage": _BYTES,
    "torch.UntypedStorage": _BYTES,
}
_DTYPE_ELEMENTS = {f"torch.{dtype}": element for _, dtype, element in _ELEMENTS}


# ---------------------------------------------------------------------------------------------------- the formats


def _read_zip(path: pathlib.Path, data: mmap.mmap) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            records = {info.filename: info for info in archive.infolist()}
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, OSError, IndexError) as error:
        raise Damaged("it is a zip archive without its end, cut short perhaps") from error
    roots = [name for name in records if name.split("/")[1:] == ["data.pkl"]]
    if len(roots) != 1:
        raise UserError(
            f"{path} is a zip archive but no PyTorch checkpoint (it holds {', '.join(list(records)[:4])}); give the "
            f"checkpoint itself"
        )
    prefix = roots[0].removesuffix("data.pkl")

    def record(name: str) -> memoryview | str:
        info = records.get(prefix + name)
        return f"its storage {name.removeprefix('data/')!r} is missing" if info is None else _record(data, info)

    def fetch(key: str, _size: int) -> memoryview | str:
        return record(f"data/{key}")

    storages = _Storages(len(data), fetch)
    order = record("byteorder") if prefix + "byteorder" in records else memoryview(b"little")
    storages.swapped = bytes(order[:8]) == b"big" if not isinstance(order, str) else False
    description = record("data.pkl")
    if isinstance(description, str):
        raise Damaged(description)
    names = _names(storages)
    if prefix + "constants.pkl" not in records:
        return pickles.load(description, 0, names, storages)[0]
    return _arrays_of_modules(pickles.load(description, 0, _ScriptNames(names), storages)[0])


class _Module(Shell):
    """A module of a TorchScript archive: its attributes, without its code."""

    def fill(self, state: Any) -> dict[str, Any]:
        if not isinstance(state, dict):
            raise ValueError("a module without attributes")
        return state


class _ScriptNames(dict[str, Name]):
    """The names of a TorchScript archive: its module classes beside the usual ones."""

    def __init__(self, names: Mapping[str, Name]) -> None:
        super().__init__(names)
        for kind in ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist", "restore_type_tag"):
            name = f"torch.jit._pickle.{kind}"
            self[name] = Name(name, lambda value, *_: value)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or str(name).startswith("__torch__.")

    def __missing__(self, name: str) -> Name:
        return Name(name, _Module)


def _arrays_of_modules(top: Any) -> dict[str, np.ndarray]:
    """The tensors of nested modules by their dotted names: what ``state_dict()`` of the TorchScript module gives."""
    found: dict[str, np.ndarray] = {}
    # Depth first, in order; counted, as a module may hold itself.
    waiting, visited = [("", top)], 0
    while waiting:
        name, value = waiting.pop()
        visited += 1
        if visited > _MOST_MODULES or len(name) > _LONGEST_NAME:
            raise Damaged("its modules are nested without end")
        if isinstance(value, np.ndarray):
            found[name] = value
        elif isinstance(value, dict):
            waiting += [(f"{name}.{key}" if name else str(key), inner) for key, inner in reversed(value.items())]
    return found


def _record(data: mmap.mmap, info: zipfile.ZipInfo) -> memoryview | str:
    """The bytes of a record inside the map; PyTorch stores records uncompressed."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        return f"record {info.filename!r} is compressed or encrypted, which PyTorch never does"
    header = bytes(data[info.header_offset : info.header_offset + 30])
    if len(header) < 30 or not header.startswith(_ZIP_START):
        return f"record {info.filename!r} is not where the archive says"
    name, extra = struct.unpack("<HH", header[26:30])
    start = info.header_offset + 30 + name + extra
    found = memoryview(data)[start : start + info.file_size]
    if len(found) != info.file_size:
        return f"record {info.filename!r} is cut short"
    # PyTorch can be told to leave the check sums out.
    if info.CRC and zlib.crc32(found) != info.CRC:
        return f"record {info.filename!r} has changed since it was written (wrong check sum)"
    return found


def _read_legacy(path: pathlib.Path, data: mmap.mmap) -> Any:
    """Magic number, protocol, facts about the writer, the object, the keys of the storages, the storages."""
    _, at = pickles.load(data, 0, {})
    protocol, at = pickles.load(data, at, {})
    facts, at = pickles.load(data, at, {})
    if protocol != _LEGACY_PROTOCOL or not isinstance(facts, dict):
        raise Damaged("its header makes no sense")
    if not facts.get("little_endian", True):
        raise UserError(f"{path} was written on a big-endian machine; save it again with PyTorch 1.6 or later")
    # The storages come last but the tensors are views of them: one pass to find them, one to build.
    survey = _Storages(len(data))
    _, end = pickles.load(data, at, _unchecked(_names(survey)), survey)
    keys, end = pickles.load(data, end, {})
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Damaged("its list of storages makes no sense")
    blocks: dict[str, memoryview] = {}
    whole = memoryview(data)
    for key in keys:
        if key not in survey.declared:
            raise Damaged(f"its storage {key!r} belongs to no tensor")
        element, _ = survey.declared[key]
        count = struct.unpack("<q", whole[end : end + 8])[0] if end + 8 <= len(data) else -1
        size = count * _itemsize(element)
        if count < 0 or end + 8 + size > len(data):
            raise Damaged(f"it ends in the middle of storage {key!r}, number {len(blocks) + 1} of {len(keys)}")
        blocks[key] = whole[end + 8 : end + 8 + size]
        end += 8 + size

    def fetch(key: str, _size: int) -> memoryview | str:
        return blocks.get(key, f"its storage {key!r} is missing")

    storages = _Storages(len(data), fetch)
    return pickles.load(data, at, _names(storages), storages)[0]


def _unchecked(names: Mapping[str, Name]) -> dict[str, Name]:
    """The same names, with tensors that need no data."""

    def nothing(*_: Any) -> None:
        return None

    return {
        key: Name(name.name, nothing) if key.startswith("torch._utils._rebuild_tensor") else name
        for key, name in names.items()
    }


def _is_safetensors(data: mmap.mmap) -> bool:
    return len(data) >= 10 and data[8:9] == b"{" and struct.unpack("<Q", data[:8])[0] <= _LONGEST_HEADER


def _read_safetensors(data: mmap.mmap) -> dict[str, np.ndarray]:
    size = struct.unpack("<Q", data[:8])[0]
    body = memoryview(data)[8 + size :]
    if 8 + size > len(data):
        raise Damaged("it ends in the middle of its header")
    try:
        header = json.loads(bytes(data[8 : 8 + size]))
        return {name: _safetensor(body, name, entry) for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged("its header makes no sense") from error


def _safetensor(body: memoryview, name: str, entry: Mapping[str, Any]) -> np.ndarray:
    element, shape, (start, stop) = _SAFETENSORS.get(entry["dtype"]), entry["shape"], entry["data_offsets"]
    if element is None:
        raise Refused(f"tensors of type {entry['dtype']}")
    if not all(map(_is_count, (*shape, start, stop))) or stop - start != math.prod(shape) * _itemsize(element):
        raise ValueError("offsets that do not fit the shape")
    if stop > len(body):
        raise Damaged(f"{name}: it ends in the middle of this tensor")
    return _elements(body[start:stop], element).reshape(shape)
