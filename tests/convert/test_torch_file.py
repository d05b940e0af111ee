"""The reader of checkpoint files on files made by hand, most of them hostile or damaged.

Pickles are written opcode by opcode, so that every trick can be tried and no PyTorch is needed.
"""

from __future__ import annotations

import json
import pickle
import struct
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest

from mmreid_jax.convert import torch_file
from mmreid_jax.errors import UserError
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
    PERSID,
    REDUCE,
    SETITEM,
    SETITEMS,
    START,
    TUPLE,
    call,
    dict_of,
    legacy_file,
    name,
    number,
    numbers,
    storage,
    tensor,
    text,
    tuple_of,
    whole,
    zip_file,
)


@pytest.fixture
def archive(tmp_path):
    """Writes a zip checkpoint of a pickle and its storages."""
    return lambda *content, **options: zip_file(tmp_path / "made.pth", *content, **options)


@pytest.fixture
def legacy(tmp_path):
    """Writes a legacy stream."""
    return lambda *content, **options: legacy_file(tmp_path / "made.t", *content, **options)


@pytest.fixture
def plain(tmp_path):
    """Writes bytes as they are."""

    def write(raw, called="made.bin"):
        path = tmp_path / called
        path.write_bytes(raw)
        return path

    return write


def refused(path, words):
    with pytest.raises(UserError, match=words) as error:
        torch_file.state_dict(path)
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)
    assert len(str(error.value)) < 1000


# ------------------------------------------------------------------------------------------------------- formats


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


class TestPlainPickle:
    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_numpy_arrays(self, plain, protocol):
        content = {
            "model": {"w": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6).reshape(2, 3))},
            "best": np.float64(0.5),
            "big": np.arange(2, dtype=">i4"),
            "many": [1, 2.5, None, True, "a", b"b", (1, 2), {3}, frozenset([4]), 2**70, -5, 1j],
        }
        path = plain(pickle.dumps(content, protocol))
        found = torch_file.read(path)
        assert found["many"] == content["many"]
        assert found["best"] == 0.5
        np.testing.assert_array_equal(found["big"], content["big"])
        entries = torch_file.state_dict(path).entries
        for key in ("w", "f"):
            np.testing.assert_array_equal(entries[key], content["model"][key])

    @pytest.mark.parametrize(
        "value", [np.array([object()]), np.array(["2020-01-01"], "M8[D]"), np.zeros(2, [("a", "f4")])]
    )
    def test_other_numpy_arrays(self, plain, value):
        refused(plain(pickle.dumps({"w": value}, 2)), "refused|damaged")


class TestNoCheckpoint:
    @pytest.mark.parametrize(
        ("raw", "words"),
        [
            (b"<!doctype html>", "a web page: the download failed"),
            (b"  \n<html>", "a web page"),
            (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
            (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
            (b"\x1f\x8b\x08", "a gzip archive"),
            (b"just words", r"it has 10 bytes and starts with b'just words'"),
            (b"\x80", "not a checkpoint|damaged"),
            (b"\x00" * 257 + b"ustar" + b"\x00" * 250, "a tar archive"),
        ],
    )
    def test_says_what_it_looks_like(self, plain, raw, words):
        refused(plain(raw), words)

    def test_missing(self, tmp_path):
        refused(tmp_path / "nowhere.pth", "there is no file")

    def test_directory(self, tmp_path):
        refused(tmp_path, "is a directory")

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (number(3), "it is a int"),
            (EMPTY_DICT, "an empty dictionary"),
            (tensor(), r"one array of shape \[4\]"),
            (dict_of(a=number(1), b=text("c")), "a dictionary with the keys a, b"),
        ],
    )
    def test_no_weights(self, archive, content, words):
        refused(archive(content), words)


# ------------------------------------------------------------------------------------------------- finding weights


class TestFinding:
    @pytest.mark.parametrize("key", torch_file.WRAPPERS)
    def test_usual_keys(self, archive, key):
        found = torch_file.state_dict(archive(dict_of(**{key: dict_of(w=tensor()), "cmc": tensor()})))
        assert found.under == key
        assert list(found.entries) == ["w"]

    def test_nested(self, archive):
        found = torch_file.state_dict(archive(dict_of(model=dict_of(state_dict=dict_of(w=tensor())))))
        assert found.under == "model.state_dict"

    def test_only_candidate(self, archive):
        assert torch_file.state_dict(archive(dict_of(mine=dict_of(w=tensor()), epoch=number(1)))).under == "mine"

    def test_several_candidates(self, archive):
        path = archive(dict_of(a=dict_of(w=tensor()), b=dict_of(w=tensor(offset=1, size=(3,)))))
        refused(path, r"several state_dicts \(a, b\)")
        assert torch_file.state_dict(path, under="b").entries["w"].shape == (3,)
        with pytest.raises(UserError, match="nothing under 'c'; its keys are a, b"):
            torch_file.state_dict(path, under="c")

    def test_second_copy_is_mentioned(self, archive):
        found = torch_file.state_dict(archive(dict_of(model=dict_of(w=tensor()), ema=dict_of(w=tensor()))))
        assert found.notes == ["read 'model'; the file also holds ema"]

    def test_prefixes(self, archive):
        inside = {"module._orig_mod.a": tensor(), "module._orig_mod.b": tensor()}
        found = torch_file.state_dict(archive(dict_of(**inside)))
        assert list(found.entries) == ["a", "b"]
        assert len(found.notes) == 2

    def test_prefix_of_some_only_is_a_name(self, archive):
        inside = {"module.a": tensor(), "b": tensor()}
        assert set(torch_file.state_dict(archive(dict_of(**inside))).entries) == set(inside)

    def test_what_is_no_tensor_is_passed_over(self, archive):
        found = torch_file.state_dict(archive(dict_of(w=tensor(), epoch=number(3))))
        assert list(found.entries) == ["w"]
        assert found.notes == ["passed over, as no tensors: epoch"]

    def test_dictionary_that_holds_itself(self, archive):
        content = EMPTY_DICT + b"q\x00" + MARK + text("w") + tensor() + text("model") + b"h\x00" + SETITEMS
        assert "w" in torch_file.state_dict(archive(content)).entries


# ---------------------------------------------------------------------------------------------------- bad tensors


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


# -------------------------------------------------------------------------------------------------------- hostile


class Pwned:
    """Pickles as a call that would leave a file behind."""

    def __reduce__(self):
        import os

        return os.system, ("touch mmreid_pwned",)


EVIL = [
    ("posix", "system"),
    ("os", "system"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("builtins", "__import__"),
    ("__builtin__", "getattr"),
    ("subprocess", "Popen"),
    ("operator", "attrgetter"),
    ("functools", "partial"),
    ("importlib", "import_module"),
    ("torch.storage", "_load_from_bytes"),
    ("torch", "load"),
    ("torch.hub", "load"),
    ("torch._utils", "_rebuild_tensor_v2.__globals__"),
    ("collections", "OrderedDict.__init__.__globals__"),
    ("numpy.core.multiarray", "scalar.__class__"),
    ("numpy", "load"),
    ("mmreid_jax.convert.torch_file", "read"),
    ("__torch__.net", "Net"),
]


class TestHostile:
    @pytest.fixture(autouse=True)
    def nothing_is_executed(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        yield
        assert not (tmp_path / "mmreid_pwned").exists()

    @pytest.mark.parametrize("target", EVIL, ids=".".join)
    @pytest.mark.parametrize("how", ["call", "build", "new", "mere mention"])
    def test_names(self, archive, legacy, plain, target, how):
        content = {
            "call": call(name(*target), text("touch mmreid_pwned")),
            "build": name(*target) + dict_of(a=number(1)) + BUILD,
            "new": name(*target) + EMPTY_TUPLE + NEWOBJ,
            "mere mention": name(*target),
        }[how]
        full = ".".join(target).replace(".", r"\.")
        made = dict_of(w=content)
        for path in (archive(made), legacy(made, storages=()), plain(whole(made))):
            refused(path, f"asks for {full}, which is refused.*nothing in a file is executed")

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_pickled_calls(self, plain, protocol):
        refused(plain(pickle.dumps({"w": Pwned()}, protocol)), "system")

    @pytest.mark.parametrize(
        "content",
        [
            MARK + text("touch mmreid_pwned") + b"iposix\nsystem\n",
            b"(" + name("posix", "system") + text("touch mmreid_pwned") + b"o",
            name("posix", "system") + tuple_of(text("touch mmreid_pwned")) + EMPTY_DICT + b"\x92",
            text("posix") + text("system") + b"\x93" + tuple_of(text("touch mmreid_pwned")) + REDUCE,
            b"\x82\x01",
            b"\x83\x01\x00",
            b"\x97",
            b"Pposix.system\n",
        ],
        ids=["INST", "OBJ", "NEWOBJ_EX", "STACK_GLOBAL", "EXT1", "EXT2", "NEXT_BUFFER", "PERSID"],
    )
    def test_other_ways_to_call(self, archive, content):
        refused(archive(dict_of(w=content)), "which is refused")

    @pytest.mark.parametrize(
        "content",
        [
            # Methods by way of attributes set on what may be named.
            name("torch._utils", "_rebuild_tensor_v2") + dict_of(__code__=number(1)) + BUILD,
            name("collections", "OrderedDict") + tuple_of(NONE, dict_of(__init__=number(1))) + BUILD,
            name("torch", "FloatStorage") + dict_of(call=name("torch", "Size")) + BUILD,
            EMPTY_LIST + dict_of(append=number(1)) + BUILD,
            EMPTY_DICT + tuple_of(NONE, dict_of(get=number(1))) + BUILD,
            tensor() + dict_of(data=number(1)) + BUILD,
            # Markers are no functions.
            call(name("torch", "FloatStorage"), number(4)),
            call(name("numpy", "ndarray"), number(4)),
            call(name("builtins", "list"), EMPTY_TUPLE),
        ],
    )
    def test_attributes_and_markers(self, archive, content):
        refused(archive(dict_of(w=tensor(), evil=content)), "which is refused")

    @pytest.mark.parametrize(
        "arguments",
        [
            (),
            (number(1),),
            (NONE, number(0), numbers(4), numbers(1), FALSE, NONE),
            (text("storage"), number(0), numbers(4), numbers(1), FALSE, NONE),
            (storage(), text("0"), numbers(4), numbers(1), FALSE, NONE),
            (storage(), number(0), text("4"), numbers(1), FALSE, NONE),
            (storage(), number(0), numbers(4), EMPTY_LIST, FALSE, NONE),
            (storage(), number(0), tuple_of(text("4")), numbers(1), FALSE, NONE),
            (storage(), number(0), tuple_of(b"\x88"), numbers(1), FALSE, NONE),
            (storage(), number(0), tuple_of(b"G" + struct.pack(">d", 4.0)), numbers(1), FALSE, NONE),
            (name("torch", "FloatStorage"), number(0), numbers(4), numbers(1), FALSE, NONE),
        ],
    )
    def test_evil_arguments_of_tensors(self, archive, arguments):
        refused(archive(dict_of(w=call(name("torch._utils", "_rebuild_tensor_v2"), *arguments))), "damaged")

    @pytest.mark.parametrize(
        ("reference", "words"),
        [
            (text("storage"), "an object outside of the file"),
            (number(1), "an object outside of the file"),
            (EMPTY_TUPLE, "an object outside of the file"),
            (tuple_of(text("module"), name("torch", "Tensor"), text("net.py"), text("import os")), "whole module"),
            (tuple_of(text("storage"), text("FloatStorage"), text("0"), text("cpu"), number(4)), "damaged"),
            (tuple_of(text("storage"), name("torch", "Size"), text("0"), text("cpu"), number(4)), "damaged"),
            (tuple_of(text("storage"), name("torch", "FloatStorage"), number(0), text("cpu"), number(4)), "damaged"),
            (tuple_of(text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), number(-4)), "damaged"),
        ],
    )
    def test_references(self, archive, reference, words):
        refused(archive(dict_of(w=tensor(reference + PERSID))), words)

    def test_storage_names_stay_in_the_archive(self, archive):
        refused(archive(dict_of(w=tensor(storage("../../../etc/passwd")))), "w: its storage .* is missing")

    def test_references_need_an_archive(self, plain):
        refused(plain(whole(dict_of(w=tensor()))), "an object outside of the file")

    @pytest.mark.parametrize(
        "content",
        [
            b"h\x05",
            b"j\xff\xff\xff\xff",
            b"g-1\n",
            b"0" * 3,
            TUPLE,
            SETITEMS,
            MARK + SETITEM,
            EMPTY_DICT + MARK + text("odd") + SETITEMS,
            EMPTY_LIST + text("a") + number(1) + SETITEM,
            EMPTY_DICT + number(1) + APPEND,
            EMPTY_DICT + EMPTY_LIST + number(1) + SETITEM,
            EMPTY_DICT + EMPTY_DICT + number(1) + SETITEM,
            number(1) + EMPTY_TUPLE + REDUCE,
            name("torch", "Size") + number(1) + REDUCE,
            b"\xff",
            b"I" + b"9" * 5000 + b"\n",
            b"X\xff\xff\xff\xffabc",
            b"X\x01\x00\x00\x00\xff",
            b"\x8b\xff\xff\xff\x7f1",
            b"Fnot a number\n",
        ],
    )
    def test_nonsense(self, archive, content):
        refused(archive(content), "damaged")

    def test_memo_cannot_swap_objects(self, archive):
        """A shell remembered before it is filled is the filled array later, and none of its parts."""
        array = call(name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"), numbers(0), text("b"))
        dtype = call(name("numpy", "dtype"), text("f4"), FALSE, b"\x88") + b"q\x02" + numbers(3) + b"0"
        state = tuple_of(number(1), numbers(4), dtype, FALSE, b"C\x10" + FOUR.tobytes())
        found = torch_file.read(archive(dict_of(a=array + b"q\x01" + state + BUILD, b=b"h\x01")))
        assert found["a"] is found["b"]
        np.testing.assert_array_equal(found["a"], FOUR)

    def test_numpy_that_lies(self, archive):
        array = call(name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"), numbers(0), text("b"))
        dtype = call(name("numpy", "dtype"), text("f4"), FALSE, b"\x88")
        for shape in ((1 << 62,), (5,), (-4,), (1 << 40, 1 << 40)):
            state = tuple_of(number(1), numbers(*shape), dtype, FALSE, b"C\x10" + FOUR.tobytes())
            refused(archive(dict_of(w=tensor(), a=array + state + BUILD)), "damaged")
        objects = call(name("numpy", "dtype"), text("O8"), FALSE, b"\x88")
        state = tuple_of(number(1), numbers(1), objects, FALSE, EMPTY_LIST)
        refused(archive(dict_of(a=array + state + BUILD)), "asks for a, numpy arrays of type 'O8', which is refused")
        found = torch_file.state_dict(archive(dict_of(w=tensor(), a=array + state + BUILD)))
        assert found.unreadable == {"a": "numpy arrays of type 'O8'"}

    @pytest.mark.parametrize("where", ["value", "key", "member", "device", "reference"])
    def test_nested_doubling_costs_nothing(self, archive, where):
        """A tuple of twice the one before, sixty times: as a key it would be hashed 2 ** 60 times."""
        bomb = EMPTY_TUPLE + b"".join(b"2\x86" for _ in range(60))
        content = {
            "value": dict_of(w=tensor(), a=bomb),
            "key": dict_of(w=tensor(), a=EMPTY_DICT + bomb + number(1) + SETITEM),
            "member": dict_of(w=tensor(), a=b"\x8f" + MARK + bomb + b"\x90"),
            "device": dict_of(w=tensor(), a=call(name("torch", "device"), bomb)),
            "reference": dict_of(w=tensor(bomb + PERSID)),
        }[where]
        path = archive(content)
        if where != "reference":
            assert "w" in torch_file.state_dict(path).entries
        else:
            refused(path, "damaged|outside of the file")

    def test_deep_nesting(self, archive):
        depth = 200_000
        path = archive(dict_of(w=tensor(), deep=EMPTY_LIST * depth + APPEND * (depth - 1)))
        assert "w" in torch_file.state_dict(path).entries

    def test_declared_sizes_cost_no_memory(self, archive, legacy, plain):
        huge = 1 << 45
        cases = [
            archive(dict_of(w=tensor(storage(numel=huge), size=(huge,)))),
            legacy(dict_of(w=tensor(storage(numel=huge), size=(huge,)))),
            plain(START + b"\x8e" + struct.pack("<Q", huge)),
            plain(b"\x80\x04\x95" + struct.pack("<Q", huge) + b"."),
        ]
        tracemalloc.start()
        for path in cases:
            refused(path, "damaged")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1 << 24
