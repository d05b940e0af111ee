"""Writes pickles opcode by opcode, so that every trick can be tried and no PyTorch is needed."""

from __future__ import annotations

import json
import struct
import zipfile

import numpy as np

START, STOP = b"\x80\x02", b"."
EMPTY_TUPLE, EMPTY_LIST, EMPTY_DICT, MARK, TUPLE = b")", b"]", b"}", b"(", b"t"
REDUCE, BUILD, NEWOBJ, SETITEM, SETITEMS, APPEND, PERSID = b"R", b"b", b"\x81", b"s", b"u", b"a", b"Q"
NONE, FALSE = b"N", b"\x89"


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value):
    raw = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def name(module, attribute):
    return b"c" + f"{module}\n{attribute}\n".encode()


def tuple_of(*items):
    return MARK + b"".join(items) + TUPLE


def numbers(*values):
    return tuple_of(*map(number, values))


def call(function, *arguments):
    return function + tuple_of(*arguments) + REDUCE


def dict_of(**items):
    return EMPTY_DICT + MARK + b"".join(text(key) + value for key, value in items.items()) + SETITEMS


def storage(key="0", numel=4, kind=("torch", "FloatStorage"), extra=b""):
    return tuple_of(text("storage"), name(*kind), text(key), text("cpu"), number(numel), extra) + PERSID


def tensor(block=None, offset=0, size=(4,), stride=(1,), rebuild="_rebuild_tensor_v2", extra=b""):
    hooks = call(name("collections", "OrderedDict"))
    shape = (number(offset), numbers(*size), numbers(*stride))
    return call(name("torch._utils", rebuild), block or storage(), *shape, FALSE, hooks, extra)


def whole(content):
    return START + content + STOP


FOUR = np.arange(4, dtype=np.float32)
# Key, bytes, number of elements.
ONE_STORAGE = (("0", FOUR.tobytes(), 4),)


def zip_file(path, content, storages=None, compression=zipfile.ZIP_STORED, **records):
    """A zip checkpoint of a pickle and its storages."""
    storages = {"0": FOUR.tobytes()} if storages is None else storages
    with zipfile.ZipFile(path, "w", compression) as out:
        out.writestr("made/data.pkl", whole(content))
        for key, raw in storages.items():
            out.writestr(f"made/data/{key}", raw)
        for key, raw in records.items():
            out.writestr(f"made/{key.replace('_pkl', '.pkl')}", raw)
    return path


def legacy_file(path, content, storages=ONE_STORAGE, keys=None, little_endian=b"\x88", protocol=1001):
    """A legacy stream."""
    magic = START + b"\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + STOP
    keys = [key for key, _, _ in storages] if keys is None else keys
    listed = EMPTY_LIST + MARK + b"".join(map(text, keys)) + b"e"
    facts = dict_of(little_endian=little_endian)
    parts = [magic, *map(whole, (number(protocol), facts, content, listed))]
    parts += [struct.pack("<q", count) + raw for _, raw, count in storages]
    path.write_bytes(b"".join(parts))
    return path


def safetensors_bytes(header, body=b""):
    """A safetensors file of a header, as JSON or bytes, and a body."""
    header = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<Q", len(header)) + header + body
