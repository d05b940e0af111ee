"""Reads and writes safetensors files by the reference library, which checks them here.

The library refuses tensors that overlap, leave holes or bytes over, shapes that do not fit, and metadata that are no
text. The arrays are views of the file's map; bfloat16 becomes float32. Reference: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import errno
import json
import math
import mmap
import os
import pathlib
import re
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmreid_jax.convert.budget import Budget
from mmreid_jax.convert.pickles import Damaged, Unsupported
from mmreid_jax.convert.tensors import BFLOAT16, MOST_AXES, elements
from mmreid_jax.errors import printable

# Some 40,000 tensors. The library goes to 100 MB, which are not worth the seconds they take.
_LONGEST_HEADER = 4 << 20
# JSON becomes Python objects of up to so many times its size.
_UNFOLDED = 8
# Numbers that an empty tensor would have if its lengths of 0 were 1.
_LARGEST_EMPTY = 1 << 32
_TYPES = {
    "F16": "<f2",
    "BF16": BFLOAT16,
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
    "C64": "<c8",
}


def is_safetensors(data: mmap.mmap) -> bool:
    """Whether a file begins as safetensors: the length of a header, then JSON."""
    return len(data) >= 10 and data[8:9] == b"{" and struct.unpack("<Q", data[:8])[0] <= 100_000_000


def save_safetensors(path: pathlib.Path, entries: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file.

    Args:
      path: of the file.
      entries: arrays by name.
      metadata: texts for its header.

    Raises:
      OSError: the disk does not take it; the library has an exception of its own for that.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(dict(entries), path, dict(metadata))
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        reason = (errno.EIO, str(error)) if code is None else (int(code[1]), os.strerror(int(code[1])))
        raise OSError(*reason, str(path)) from error


def read_safetensors(path: pathlib.Path, data: mmap.mmap, budget: Budget) -> dict[str, Any]:
    """The tensors of a file, read-only; `Unsupported` where numpy has no such type.

    Raises:
      Damaged: the library refuses the file.
      Excessive: it costs more than the budget.
    """
    from safetensors import SafetensorError, safe_open

    size = struct.unpack("<Q", data[:8])[0]
    if 8 + size > len(data):
        raise Damaged("it ends in the middle of its header")
    if size > _LONGEST_HEADER:
        raise Damaged(f"its header has {size:,} bytes")
    budget.pay(_UNFOLDED * size, size // 64)
    try:
        with safe_open(path, "numpy") as opened:
            names = set(opened.keys())
    except (SafetensorError, ValueError, OSError) as error:
        raise Damaged(_cut_tensor(data, size) or f"the library says {printable(str(error).strip(), 200)!r}") from error
    header = json.loads(bytes(data[8 : 8 + size]))
    body = memoryview(data)[8 + size :]
    tensors: dict[str, Any] = {}
    for name, entry in header.items():
        if name not in names:
            continue
        budget.pay(256)
        element, shape, (start, stop) = _TYPES.get(entry["dtype"]), entry["shape"], entry["data_offsets"]
        if element is None:
            tensors[name] = Unsupported(f"tensors of type {entry['dtype']}")
            continue
        if len(shape) > MOST_AXES or math.prod(filter(None, shape)) > max(_LARGEST_EMPTY, stop - start):
            tensors[name] = Unsupported(f"a tensor of shape {printable(shape)}")
            continue
        if element == BFLOAT16:
            budget.pay(2 * (stop - start))
        tensors[name] = elements(body[start:stop], element).reshape(shape)
    return tensors


def _cut_tensor(data: mmap.mmap, size: int) -> str | None:
    """Says which tensor a file ends in, the usual fault; None for others, and for headers that make no sense."""
    try:
        entries = json.loads(bytes(data[8 : 8 + size])).items()
        beyond = [
            name
            for name, entry in entries
            if name != "__metadata__" and entry["data_offsets"][1] > len(data) - 8 - size
        ]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return f"{printable(beyond[0])}: it ends in the middle of this tensor" if beyond else None
