"""Checkpoints as zip archives and as legacy streams, made by hand, whole and damaged."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from mmreid_jax.convert import torch_file
from tests.convert.checks import refused
from tests.convert.opcodes import (
    APPEND,
    BUILD,
    EMPTY_DICT,
    EMPTY_LIST,
    EMPTY_TUPLE,
    FALSE,
    FOUR,
    MARK,
    NEWOBJ,
    NONE,
    SETITEM,
    SETITEMS,
    call,
    dict_of,
    name,
    number,
    numbers,
    storage,
    tensor,
    text,
    tuple_of,
    whole,
)


class TestZip:
    def test_tensor(self, archive):
        found = torch_file.state_dict(archive(dict_of(w=tensor(size=(2, 2), stride=(2, 1)))))
        np.testing.assert_array_equal(found.entries["w"], FOUR.reshape(2, 2))
        assert found.under is None

    def test_arrays_are_views_of_the_file(self, archive):
        found = torch_file.state_dict(archive(dict_of(a=tensor(), b=tensor())))
        assert not found.entries["a"].flags.writeable
        assert np.shares_memory(found.entries["a"], found.entries["b"])

    def test_big_endian(self, archive):
        half = (np.arange(2, dtype=np.float32).view("<u4") >> 16).astype(">u2").tobytes()
        content = dict_of(w=tensor(), h=tensor(storage("1", 2, ("torch", "BFloat16Storage")), size=(2,)))
        found = torch_file.state_dict(
            archive(content, {"0": FOUR.astype(">f4").tobytes(), "1": half}, byteorder=b"big")
        )
        np.testing.assert_array_equal(found.entries["w"], FOUR)
        np.testing.assert_array_equal(found.entries["h"], [0, 1])

    @pytest.mark.parametrize(("dtype", "numpy"), [("float32", "<f4"), ("uint16", "<u2"), ("float64", "<f8")])
    def test_typed_tensors_of_bytes(self, archive, dtype, numpy):
        raw = np.arange(3).astype(numpy).tobytes()
        block = storage(numel=len(raw), kind=("torch.storage", "UntypedStorage"))
        content = tensor(block, size=(3,), rebuild="_rebuild_tensor_v3", extra=name("torch", dtype) + NONE)
        entries = torch_file.state_dict(archive(dict_of(w=content), {"0": raw})).entries
        assert entries["w"].dtype == numpy
        np.testing.assert_array_equal(entries["w"], [0, 1, 2])

    def test_attributes_of_a_tensor(self, archive):
        inner = tuple_of(storage(), number(0), numbers(4), numbers(1), FALSE, call(name("collections", "OrderedDict")))
        rebuild = name("torch._utils", "_rebuild_tensor_v2")
        outer = name("torch._tensor", "_rebuild_from_type_v2")
        content = call(outer, rebuild, name("torch", "Tensor"), inner, dict_of(note=text("mine")))
        np.testing.assert_array_equal(torch_file.state_dict(archive(dict_of(w=content))).entries["w"], FOUR)
        content = call(outer, name("collections", "OrderedDict"), name("torch", "Tensor"), EMPTY_TUPLE, NONE)
        refused(archive(dict_of(w=content)), "asks for w, a tensor subclass")

    def test_python_objects_around(self, archive):
        state = call(name("collections", "OrderedDict")) + MARK + text("w") + tensor() + SETITEMS
        state += dict_of(_metadata=dict_of(version=number(1))) + BUILD
        factory = name("builtins", "list")
        content = dict_of(
            state_dict=state,
            epoch=number(3),
            size=call(name("torch", "Size"), numbers(2, 3)),
            seen=call(name("builtins", "set"), EMPTY_LIST + number(5) + APPEND),
            groups=call(name("collections", "defaultdict"), factory),
        )
        found = torch_file.read(archive(content))
        assert found["epoch"] == 3
        assert found["size"] == (2, 3)
        assert found["seen"] == {5}
        assert found["groups"] == {}
        assert list(found["state_dict"]) == ["w"]

    def test_torchscript(self, archive):
        kind = name("__torch__.net.___torch_mangle_3", "Net")
        inner = kind + EMPTY_TUPLE + NEWOBJ + dict_of(weight=tensor(), training=FALSE) + BUILD
        pads = call(name("torch.jit._pickle", "build_intlist"), EMPTY_LIST)
        content = kind + EMPTY_TUPLE + NEWOBJ + dict_of(layer=inner, pads=pads, scale=tensor()) + BUILD
        found = torch_file.state_dict(archive(content, constants_pkl=whole(EMPTY_TUPLE)))
        assert list(found.entries) == ["layer.weight", "scale"]
        np.testing.assert_array_equal(found.entries["layer.weight"], FOUR)

    def test_modules_only_in_torchscript(self, archive):
        kind = name("__torch__.net", "Net")
        refused(archive(kind + EMPTY_TUPLE + NEWOBJ + dict_of(w=tensor()) + BUILD), r"__torch__\.net\.Net")

    def test_torchscript_that_holds_itself(self, archive):
        own = b"h\x00"
        content = name("__torch__.net", "Net") + EMPTY_TUPLE + NEWOBJ + EMPTY_DICT + b"q\x00"
        content += MARK + text("a") + own + text("b") + own + SETITEMS + BUILD
        refused(archive(content, constants_pkl=whole(EMPTY_TUPLE)), "nested without end")

    def test_changed_record(self, archive):
        path = archive(dict_of(w=tensor()))
        raw = path.read_bytes()
        assert raw.count(FOUR.tobytes()) == 1
        path.write_bytes(raw.replace(FOUR.tobytes(), FOUR[::-1].tobytes()))
        refused(path, "w: record 'made/data/0' has changed since it was written")

    def test_compressed(self, archive):
        refused(archive(dict_of(w=tensor()), compression=zipfile.ZIP_DEFLATED), "compressed")

    def test_other_archives(self, tmp_path):
        path = tmp_path / "arrays.npz"
        np.savez(path, a=FOUR)
        refused(path, r"zip archive but no PyTorch checkpoint \(it holds a\.npy\)")

    def test_short_storage(self, archive):
        refused(
            archive(dict_of(w=tensor()), {"0": FOUR[:3].tobytes()}), "w: its storage '0' has 12 bytes instead of 16"
        )

    def test_any_cut(self, archive):
        path = archive(dict_of(w=tensor()))
        raw = path.read_bytes()
        for length in range(1, len(raw), 7):
            path.write_bytes(raw[:length])
            refused(path, "damaged|not a checkpoint|no PyTorch checkpoint")


class TestLegacy:
    def test_tensor(self, legacy):
        found = torch_file.state_dict(legacy(dict_of(w=tensor(storage(extra=NONE), 1, (3,)))))
        np.testing.assert_array_equal(found.entries["w"], [1, 2, 3])

    def test_view_of_a_storage(self, legacy):
        """Before PyTorch 0.4, storages could be views of others."""
        view = tuple_of(text("view"), number(1), number(2))
        found = torch_file.state_dict(legacy(dict_of(w=tensor(storage(extra=view), 0, (2,)))))
        np.testing.assert_array_equal(found.entries["w"], [1, 2])
        view = tuple_of(text("view"), number(3), number(2))
        refused(legacy(dict_of(w=tensor(storage(extra=view), 0, (2,)))), "w: its storage is a view that reaches beyond")

    def test_python_2_text(self, legacy):
        content = EMPTY_DICT + b"U\x01w" + tensor() + SETITEM
        np.testing.assert_array_equal(torch_file.state_dict(legacy(content)).entries["w"], FOUR)

    def test_big_endian(self, legacy):
        refused(legacy(dict_of(w=tensor()), little_endian=FALSE), "big-endian")

    def test_header(self, legacy):
        refused(legacy(dict_of(w=tensor()), protocol=1002), "its header makes no sense")

    def test_storages_that_do_not_match(self, legacy):
        refused(legacy(dict_of(w=tensor()), storages=()), "w: its storage '0' is missing")
        refused(legacy(dict_of(w=tensor()), keys=["7"]), "storage '7' belongs to no tensor")
        refused(
            legacy(dict_of(w=tensor()), (("0", FOUR.tobytes(), 3),)), "w: its storage '0' has 12 bytes instead of 16"
        )

    @pytest.mark.parametrize("count", [-1, 5, 1 << 40, (1 << 63) - 1])
    def test_absurd_length(self, legacy, count):
        refused(
            legacy(dict_of(w=tensor()), (("0", FOUR.tobytes(), count),)), "in the middle of storage '0', number 1 of 1"
        )

    def test_any_cut(self, legacy):
        path = legacy(dict_of(w=tensor()))
        raw = path.read_bytes()
        for length in range(1, len(raw), 7):
            path.write_bytes(raw[:length])
            refused(path, "damaged|not a checkpoint|holds no state_dict")
