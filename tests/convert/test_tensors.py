"""Tensors over storages: bounds, sizes and copies."""

from __future__ import annotations

import struct

import pytest

from tests.convert.checks import refused
from tests.convert.opcodes import (
    dict_of,
    storage,
    tensor,
)


class TestTensors:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"size": (5,)}, "last element is number 4 of a storage of 4"),
            ({"offset": 1}, "last element is number 4"),
            ({"size": (2, 2), "stride": (3, 1)}, "last element is number 4"),
            ({"size": (2,), "stride": (1 << 62,)}, "of a storage of 4"),
            ({"size": (1 << 40, 1 << 40), "stride": (0, 0)}, "larger than the file"),
            ({"size": (1 << 30,), "stride": (0,)}, "larger than the file"),
            ({"size": (0, 1 << 60), "stride": (1, 1)}, "larger than the file"),
        ],
    )
    def test_out_of_bounds(self, archive, options, words):
        refused(archive(dict_of(w=tensor(**options))), f"w: .*{words}")

    @pytest.mark.parametrize(
        "options",
        [
            {"offset": -1},
            {"size": (-4,)},
            {"stride": (-1,)},
            {"size": (2, 2)},
            {"size": (1,) * 60, "stride": (1,) * 60},
        ],
    )
    def test_nonsense(self, archive, options):
        refused(archive(dict_of(w=tensor(**options))), "damaged")

    def test_one_storage_of_two_sizes(self, archive):
        content = dict_of(a=tensor(), b=tensor(storage(numel=5), size=(5,)))
        refused(archive(content), "b: its storage '0' is given two sizes")

    def test_copies_are_limited(self, archive):
        """Each bfloat16 storage becomes twice its size: many records may not lie on top of each other."""
        count = 9 << 20
        path = archive(
            dict_of(**{f"w{i}": tensor(storage(str(i), count, ("torch", "BFloat16Storage"))) for i in range(4)}),
            {"0": bytes(2 * count)},
        )
        raw = bytearray(path.read_bytes())
        directory = raw.rindex(b"PK\x01\x02")
        entry, end = raw[directory : raw.rindex(b"PK\x05\x06")], raw[raw.rindex(b"PK\x05\x06") :]
        more = b"".join(bytes(entry).replace(b"made/data/0", f"made/data/{i}".encode()) for i in (1, 2, 3))
        total = struct.unpack("<H", end[10:12])[0] + 3
        size = struct.unpack("<I", end[12:16])[0] + len(more)
        end = end[:8] + struct.pack("<HHI", total, total, size) + end[16:]
        path.write_bytes(bytes(raw[: directory + len(entry)]) + more + bytes(end))
        refused(path, "its storage overlaps others")
