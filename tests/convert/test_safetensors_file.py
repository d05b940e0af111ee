"""Safetensors files, made by hand and by the library, and those that lie."""

from __future__ import annotations

import errno
import json
import struct

import ml_dtypes
import numpy as np
import pytest

from mmreid_jax.convert import safetensors_file, torch_file
from tests import limits
from tests.convert.checks import refused


class TestSafetensors:
    @staticmethod
    def raw(header, body=b""):
        header = json.dumps(header).encode() if not isinstance(header, bytes) else header
        return struct.pack("<Q", len(header)) + header + body

    def test_as_the_library_writes_it(self, tmp_path):
        from safetensors.numpy import save_file

        arrays = {
            "a": np.arange(6, dtype=np.float32).reshape(2, 3),
            "b": np.array(3, np.int64),
            "c": np.zeros((0, 4), np.float16),
            "d": np.array([True, False]),
        }
        save_file(arrays, tmp_path / "w.safetensors", {"format": "pt"})
        found = torch_file.state_dict(tmp_path / "w.safetensors")
        assert set(found.entries) == set(arrays)
        for key, value in arrays.items():
            assert found.entries[key].dtype == value.dtype
            np.testing.assert_array_equal(found.entries[key], value)

    def test_a_full_disk_is_an_error_of_the_system(self, tmp_path):
        arrays = {"a": np.zeros(1000, np.float32)}
        with limits.files_of_at_most(2000), pytest.raises(OSError) as caught:
            safetensors_file.save_safetensors(tmp_path / "w.safetensors", arrays, {})
        assert caught.value.errno == errno.EFBIG

    def test_bfloat16(self, plain):
        values = np.array([1.5, -2.25, 3e38], ml_dtypes.bfloat16)
        header = {"w": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}
        found = torch_file.state_dict(plain(self.raw(header, values.tobytes())))
        assert found.entries["w"].dtype == np.float32
        np.testing.assert_array_equal(found.entries["w"], values.astype(np.float32))

    @pytest.mark.parametrize(
        ("entry", "words"),
        [
            ({"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}, "w: it ends in the middle of this tensor"),
            ({"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 8]}, "damaged"),
            ({"dtype": "F32", "shape": [-2], "data_offsets": [8, 0]}, "damaged"),
            ({"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}, "damaged"),
            ({"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}, "asks for w, tensors of type F8_E4M3"),
            ({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "not fully covered"),
            ({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}, "invalid offset"),
            ({"dtype": "F32", "shape": [0] * 70, "data_offsets": [0, 0]}, "damaged"),
            ({"dtype": "F32"}, "damaged"),
            ([], "damaged"),
        ],
    )
    def test_entries_that_lie(self, plain, entry, words):
        refused(plain(self.raw({"w": entry}, b"\0" * 8)), words)

    @pytest.mark.parametrize("header", [b"{ ", b"{" * 5000, b'{"a": ' * 5000, b"{}garbage"])
    def test_nonsense_header(self, plain, header):
        refused(plain(self.raw(header)), "damaged")

    def test_cut_header(self, plain):
        refused(plain(struct.pack("<Q", 1000) + b'{"w": 1}'), "in the middle of its header")
