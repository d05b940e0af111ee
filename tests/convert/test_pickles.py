"""Pickles: plain ones, and hostile ones that must build nothing and execute nothing."""

from __future__ import annotations

import pickle
import struct
import tracemalloc

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
    PERSID,
    REDUCE,
    SETITEM,
    SETITEMS,
    START,
    TUPLE,
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
