"""Checkpoints as other programs leave them: objects beside the weights, prefixes, several networks, several files."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from mmreid_jax.commands import convert as command
from mmreid_jax.convert import layout as layouts
from mmreid_jax.convert import store, torch_file
from mmreid_jax.convert.pickles import Placeholder
from tests.convert.foreign import FC, LINEAR, NAMESPACE, pytorch, refused, same, several, under
from tests.convert.opcodes import (
    APPEND,
    BUILD,
    EMPTY_DICT,
    EMPTY_TUPLE,
    FALSE,
    FOUR,
    MARK,
    NEWOBJ,
    NONE,
    PERSID,
    SETITEMS,
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
    zip_file,
)

OBJECTS = {
    "namespace": NAMESPACE,
    "enum": call(name("project.options", "Mode"), number(1)),
    "partial": call(name("functools", "partial"), name("torch.nn", "LayerNorm")) + tuple_of(NONE, NONE, NONE) + BUILD,
    "bound method": call(name("builtins", "getattr"), NAMESPACE, text("lr")),
    "loss module": name("torch.nn.modules.loss", "CrossEntropyLoss") + EMPTY_TUPLE + NEWOBJ
    + dict_of(_parameters=EMPTY_DICT, _modules=EMPTY_DICT) + BUILD,
    "slots": name("project", "Slots") + EMPTY_TUPLE + NEWOBJ + tuple_of(NONE, dict_of(a=number(1))) + BUILD,
    "dictionary of a class": call(name("easydict", "EasyDict")) + MARK + text("a") + number(1) + SETITEMS,
    "list of a class": call(name("project", "List")) + number(1) + APPEND + MARK + number(2) + b"e",
    "set of a class": call(name("project", "Set")) + MARK + number(2) + b"\x90",
    "keyword arguments": name("project", "Config") + EMPTY_TUPLE + dict_of(a=number(1)) + b"\x92",
    "old object": MARK + text("a") + b"iproject\nConfig\n",
    "older object": MARK + name("project", "Config") + text("a") + b"o",
    "class alone": name("torch.optim.adamw", "AdamW"),
    "object of python 2": call(name("copy_reg", "_reconstructor"), name("a", "B"), name("__builtin__", "object"), NONE),
    "numpy generator": call(name("numpy.random._pickle", "__generator_ctor"), text("PCG64")) + dict_of(a=NONE) + BUILD,
    "keys of every kind": EMPTY_DICT
    + MARK
    + b"".join(key + NONE for key in (numbers(1, 2), tuple_of(numbers(1), NONE), NAMESPACE, NONE, number(1 << 62)))
    + SETITEMS,
}  # fmt: skip


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize("inside", [False, True])
def test_objects_beside_the_weights(tmp_path, kind, inside):
    entries = {"w": tensor(), "v": tensor(offset=1, size=(3,))}
    content = dict_of(**entries, odd=OBJECTS[kind])
    if not inside:
        content = dict_of(odd=OBJECTS[kind], state_dict=dict_of(**entries), epoch=number(3))
    for path in (zip_file(tmp_path / "f.pth", content), legacy_file(tmp_path / "f.t", content)):
        found = torch_file.state_dict(path)
        assert list(found.entries) == ["w", "v"]
        np.testing.assert_array_equal(found.entries["w"], FOUR)


def test_placeholders_know_their_name_alone(tmp_path):
    found = torch_file.read(zip_file(tmp_path / "f.pth", dict_of(args=NAMESPACE, w=tensor())))
    assert isinstance(found["args"], Placeholder)
    assert found["args"].name == "argparse.Namespace"
    assert found["args"].items == {}


def test_the_class_of_a_module_in_a_legacy_stream(tmp_path):
    kind = (
        tuple_of(text("module"), name("torch.nn.modules.loss", "L1Loss"), text("loss.py"), text("class L1Loss"))
        + PERSID
    )
    content = dict_of(net=dict_of(w=tensor()), criterion=kind + EMPTY_TUPLE + NEWOBJ + EMPTY_DICT + BUILD)
    assert list(torch_file.state_dict(legacy_file(tmp_path / "f.t", content)).entries) == ["w"]


@pytest.mark.parametrize("module", ["os", "posix", "subprocess", "builtins", "sys", "importlib"])
def test_good_weights_do_not_excuse_an_attack(tmp_path, module):
    evil = call(name(module, "eval"), text("1"))
    for content in (dict_of(w=tensor(), x=evil), dict_of(state_dict=dict_of(w=tensor()), x=evil)):
        refused(rf"asks for {module}\.eval, which is refused.*nothing in a file is executed", torch_file.state_dict,
                zip_file(tmp_path / "f.pth", content))  # fmt: skip


def test_weights_in_a_dictionary_of_a_class(tmp_path):
    content = call(name("project", "State")) + MARK + text("w") + tensor() + SETITEMS
    assert list(torch_file.state_dict(zip_file(tmp_path / "f.pth", content)).entries) == ["w"]
    wrapped = dict_of(model=content, epoch=number(1))
    assert torch_file.state_dict(zip_file(tmp_path / "f.pth", wrapped)).under == "model"


@pytest.mark.parametrize("top", [True, False])
def test_whole_modules(tmp_path, top):
    module = name("project.nets", "Net") + EMPTY_TUPLE + NEWOBJ
    module += dict_of(_parameters=dict_of(w=tensor()), _modules=EMPTY_DICT) + BUILD
    path = zip_file(tmp_path / "f.pth", module if top else dict_of(net=module, epoch=number(1)))
    refused(r"holds a whole module \(project\.nets\.Net\).*its state_dict is needed", torch_file.state_dict, path)


def rebuilt(kind):
    """Tensors that PyTorch writes and that are not read."""
    shape = (number(0), numbers(4), numbers(1))
    hooks = call(name("collections", "OrderedDict"))
    sparse = tuple_of(tensor(), tensor(), numbers(4, 4))
    bytes_of = storage(numel=16, kind=("torch.storage", "UntypedStorage"))
    return {
        "sparse": call(name("torch._utils", "_rebuild_sparse_tensor"), name("torch", "sparse_coo"), sparse),
        "quantised": call(name("torch._utils", "_rebuild_qtensor"), storage(kind=("torch", "QInt8Storage")), *shape),
        "type float8_e4m3fn": call(
            name("torch._utils", "_rebuild_tensor_v3"), bytes_of, *shape, FALSE, hooks, name("torch", "float8_e4m3fn")
        ),
        "ComplexHalfStorage": tensor(storage(kind=("torch", "ComplexHalfStorage"))),
        "device meta": call(
            name("torch._utils", "_rebuild_meta_tensor_no_storage"), NONE, numbers(4), numbers(1), FALSE
        ),
        "nested": call(name("torch._utils", "_rebuild_nested_tensor"), tensor(), tensor(), tensor(), tensor()),
        "subclass": call(name("torch._utils", "_rebuild_wrapper_subclass"), name("a", "B"), NONE),
    }[kind]


KINDS = ["sparse", "quantised", "type float8_e4m3fn", "ComplexHalfStorage", "device meta", "nested", "subclass"]


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_of_other_kinds(tmp_path, kind):
    beside = dict_of(state_dict=dict_of(w=tensor()), odd=rebuilt(kind), more=dict_of(x=rebuilt(kind)))
    assert list(torch_file.state_dict(zip_file(tmp_path / "f.pth", beside)).entries) == ["w"]
    within = torch_file.state_dict(zip_file(tmp_path / "f.pth", dict_of(w=tensor(), odd=rebuilt(kind))))
    assert list(within.entries) == ["w"]
    assert kind in within.unreadable["odd"]
    alone = zip_file(tmp_path / "f.pth", dict_of(odd=rebuilt(kind)))
    refused(f"asks for odd, .*{kind}.*which is refused", torch_file.state_dict, alone)


def test_a_quantised_tensor_in_a_legacy_stream(tmp_path):
    content = dict_of(q=rebuilt("quantised").replace(text("0"), text("9")), w=tensor())
    path = legacy_file(tmp_path / "f.t", content, (("9", b"abcd", 4), ("0", FOUR.tobytes(), 4)))
    np.testing.assert_array_equal(torch_file.state_dict(path).entries["w"], FOUR)


def test_only_what_is_asked_for_must_be_readable():
    entries = {"fc.weight": np.ones((2, 3), np.float32), "fc.bias": np.ones(2, np.float32)}
    expected = layouts.import_state(LINEAR, entries)[0]
    found, report = layouts.import_state(LINEAR, entries, unreadable={"old.w": "a sparse tensor"})
    same(found, expected)
    assert report.dropped == {"old.w": "an old head"}
    less = {"fc.weight": entries["fc.weight"]}
    refused(r"1 key is of a kind that is not read \(fc\.bias: a sparse tensor\)", layouts.import_state, LINEAR, less,
            unreadable={"fc.bias": "a sparse tensor"})  # fmt: skip
    refused(
        r"1 key is unexpected \(new\)", layouts.import_state, LINEAR, entries, unreadable={"new": "a sparse tensor"}
    )
    kept, report = layouts.import_state(LINEAR, less, expected, keep=["params/fc/bias"], unreadable={"fc.bias": "odd"})
    same(kept, expected)
    assert report.dropped == {"fc.bias": "the model keeps its own"}


def test_shapes_that_a_layout_cannot_prepare(tmp_path):
    entries = {f"vision_model.encoder.layers.0.self_attn.{part}_proj.weight": np.ones((3, 3)) for part in "qk"}
    entries["vision_model.encoder.layers.0.self_attn.v_proj.weight"] = np.ones(3)
    save_file(entries, tmp_path / "f.safetensors")
    refused("has shapes that no clip file has", store.open_weights, tmp_path / "f.safetensors", "clip")


class TestCommand:
    def run(self, *arguments):
        command.main(list(map(str, arguments)))

    def test_under_and_prefix(self, tmp_path, vit_variables, capsys):
        path = pytorch(tmp_path / "f.pth", {**under("encoder_q."), **under("encoder_k.")}, key="reid")
        self.run(
            "--layout", "vit", "--source", path, "--under", "reid", "--prefix", "encoder_k.", "--out", tmp_path / "o"
        )
        printed = capsys.readouterr().out
        assert "read what is under 'encoder_k.'; 30 other keys are left out" in printed
        same(store.load(tmp_path / "o")[0], vit_variables)
        # And back under a prefix.
        self.run("--export", "--source", tmp_path / "o", "--out", tmp_path / "b.safetensors", "--prefix", "module.")
        assert torch_file.state_dict(tmp_path / "b.safetensors").notes == ["prefix 'module.' removed"]

    def test_list_shows_all_that_a_file_holds(self, tmp_path, capsys):
        path = several(tmp_path / "f.pth", best=FC, current=FC)
        self.run("--list", "--source", path)
        printed = capsys.readouterr().out
        assert "--under best" in printed
        assert "--under current" in printed
        self.run("--list", "--source", path, "--under", "best")
        assert "--under" not in capsys.readouterr().out
        self.run("--list", "--source", zip_file(tmp_path / "g.pth", dict_of(w=tensor(), x=rebuilt("sparse"))))
        assert "x  a sparse tensor\n1 arrays, 4 values" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--export", "--under", "a", "--out", "x.pth"], "--under is for reading"),
            (["--layout", "vit", "--wrapper", "net", "--out", "x"], "--wrapper goes with --export"),
            (["--export", "--wrapper", "net", "--out", "x.safetensors"], "holds tensors alone"),
            (["--export", "--out", "x.npz"], "must end with .safetensors, or for a PyTorch file with .pth"),
        ],
    )
    def test_flags_that_do_not_go_together(self, tmp_path, arguments, words):
        refused(words, self.run, "--source", tmp_path, *arguments)

    @pytest.mark.parametrize(
        ("layout", "wrapper", "key"),
        [
            ("agw", None, "net"),
            ("ieee", None, "state_dict"),
            ("htt", None, None),
            ("htt", "model", "model"),
            ("agw", "bare", None),
        ],
    )
    def test_wrappers(self, tmp_path, monkeypatch, layout, wrapper, key):
        """The authors' wrapper of a layout, or the one that is asked for."""
        monkeypatch.setattr(command, "export_state", lambda *_: dict(FC))
        monkeypatch.setattr(command, "_variables", lambda _: ({}, (layout, {})))
        more = [] if wrapper is None else ["--wrapper", wrapper]
        self.run("--export", "--source", tmp_path, "--out", tmp_path / "w.pth", *more)
        found = torch_file.state_dict(tmp_path / "w.pth")
        assert found.under == key
        same(found.entries, FC)
        if key:
            assert torch_file.read(tmp_path / "w.pth")["epoch"] == 0

    @pytest.mark.parametrize(
        ("config", "layout"),
        [
            ({"method": "htt"}, ("htt", {})),
            ({"method": "caj"}, ("agw", {})),
            ({"method": "hetero_center", "model": {"dropout": 0.5}}, ("hetero_center", {"dropout": True})),
            ({"method": "hetero_center", "model": {"dropout": 0.0}}, ("hetero_center", {})),
        ],
    )
    def test_the_layout_of_a_run(self, config, layout):
        assert command.known.of_run(config) == layout

    def test_methods_without_a_layout(self):
        refused("there is no layout for the method 'mine'; give --layout", command.known.of_run, {"method": "mine"})
