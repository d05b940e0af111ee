"""Writes weights as PyTorch's zip archive, without PyTorch, so that the original programs load them.

The pickle inside names only what ``torch.load(weights_only=True)`` allows: ``collections.OrderedDict``,
``torch._utils._rebuild_tensor_v2`` and the storage classes. Records lie uncompressed at multiples of 64 bytes, as
PyTorch puts them, so that it can map the file. Reference: ``torch/serialization.py``; opcodes: module ``pickletools``.
"""

from __future__ import annotations

import pathlib
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import IO

import numpy as np

from mmreid_jax import __version__
from mmreid_jax.convert.tensors import ELEMENTS
from mmreid_jax.errors import UserError
from mmreid_jax.owned import PROGRAM

# A record of this name tells files that this program wrote from others; PyTorch does not look at it.
MARK = "written_by"
_ROOT = "archive"
_ALIGNMENT = 64
# The extra field with which PyTorch pads the header of a record.
_PADDING_ID = 0x4246
_STORAGES = {
    "bfloat16" if dtype == "bfloat16" else np.dtype(element).name: storage
    for storage, dtype, element in ELEMENTS
    if storage
}


def write_torch(
    file: IO[bytes], entries: Mapping[str, np.ndarray], wrapper: Mapping[str, int] | None, key: str
) -> None:
    """Writes a checkpoint.

    Args:
      file: to write to.
      entries: PyTorch name -> array.
      wrapper: numbers that lie beside the state_dict (``{"epoch": 0}``); None: the file is the state_dict itself.
      key: that the state_dict lies under, if there is a wrapper.

    Raises:
      UserError: an array is of a type that PyTorch has not.
    """
    for name, value in entries.items():
        if value.dtype.name not in _STORAGES:
            raise UserError(f"{name} is {value.dtype}, which a .pth file cannot hold; export to .safetensors")
    state = b"".join(_state(entries))
    if wrapper is None:
        content = state
    else:
        beside = b"".join(_text(name) + _number(value) for name, value in wrapper.items())
        content = b"}(" + _text(key) + state + beside + b"u"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _record(archive, "data.pkl", b"\x80\x02" + content + b".")
        _record(archive, "byteorder", b"little")
        for number, value in enumerate(entries.values()):
            # A scalar's bytes, too; little-endian whatever the machine.
            raw = np.ascontiguousarray(value).reshape(-1)
            little = raw if raw.dtype.name == "bfloat16" else raw.astype(raw.dtype.newbyteorder("<"), copy=False)
            _record(archive, f"data/{number}", little.view(np.uint8).data if little.size else b"")
        _record(archive, "version", b"3\n")
        _record(archive, MARK, f"{PROGRAM} {__version__}\n".encode())


def _record(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    info = zipfile.ZipInfo(f"{_ROOT}/{name}")
    # The header: 30 bytes, the name, and the padding with its own 4 bytes.
    start = archive.fp.tell() + 30 + len(info.filename.encode()) + 4  # type: ignore[union-attr]
    padding = -start % _ALIGNMENT
    info.file_size = len(content)
    info.extra = struct.pack("<HH", _PADDING_ID, padding) + b"Z" * padding
    with archive.open(info, "w") as record:
        record.write(content)


def _state(entries: Mapping[str, np.ndarray]) -> Iterator[bytes]:
    """The pickle of an OrderedDict of tensors, piece by piece."""
    yield _EMPTY + b"("
    for number, (name, value) in enumerate(entries.items()):
        storage = b"(" + _text("storage") + _global("torch", _STORAGES[value.dtype.name])
        storage += _text(str(number)) + _text("cpu") + _number(value.size) + b"tQ"
        strides = [int(np.prod(value.shape[axis + 1 :], dtype=np.int64)) for axis in range(value.ndim)]
        shape = _numbers(value.shape) + _numbers(strides)
        # Offset 0, no gradient, no hooks.
        yield _text(name) + _REBUILD + b"(" + storage + _number(0) + shape + b"\x89" + _EMPTY + b"tR"
    yield b"u"


def _global(module: str, name: str) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode()


def _text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def _number(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def _numbers(values: tuple[int, ...] | list[int]) -> bytes:
    return b"(" + b"".join(map(_number, values)) + b"t"


_REBUILD = _global("torch._utils", "_rebuild_tensor_v2")
_EMPTY = _global("collections", "OrderedDict") + b")R"


def is_ours(path: pathlib.Path) -> bool:
    """Whether a file is one that `write_torch` wrote."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(f"{_ROOT}/{MARK}").startswith(f"{PROGRAM} ".encode())
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError, EOFError, zipfile.BadZipFile, zlib.error):
        return False
