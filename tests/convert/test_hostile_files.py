"""Checkpoint files that ask for far more than their size, and random damage to good ones."""

from __future__ import annotations

import json
import os
import pickle
import random
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save as safetensors_of

from mmreid_jax.convert import store, torch_file
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
    safetensors_bytes,
    storage,
    tensor,
    text,
    tuple_of,
    whole,
    zip_file,
)

# What a file of some MB may cost: far less than the gigabytes that these ask for.
MOST_MEMORY = 300 << 20


def put(place):
    return b"r" + struct.pack("<I", place)


def get(place):
    return b"j" + struct.pack("<I", place)


def beside(*more):
    """A state_dict with one tensor, and more entries."""
    return EMPTY_DICT + MARK + text("w") + tensor() + b"".join(more) + SETITEMS


def again(first, each, count):
    """An object in the memo, and a list of `count` results of the opcodes `each` that use it."""
    return beside(text("first") + first + put(1), text("many") + EMPTY_LIST + MARK + each * count + b"e")


def line_of(path, load=torch_file.state_dict):
    """The line that a file is refused with; None: it is read."""
    try:
        load(path)
    except UserError as error:
        line = str(error)
        assert "\n" not in line
        assert len(line) < 1500
        return line
    return None


LONG_LIST = EMPTY_LIST + MARK + b"".join(b"J" + struct.pack("<i", i) for i in range(20_000)) + b"e"


PAIRS = EMPTY_LIST + MARK + b"".join(b"J" + struct.pack("<i", i) + b"N\x86" for i in range(20_000)) + b"e"


LONG_TEXT = text("x" * 300_000)


MUCH = {
    "list to set": again(LONG_LIST, name("builtins", "set") + get(1) + b"\x85R", 8000),
    "list to frozenset": again(LONG_LIST, name("builtins", "frozenset") + get(1) + b"\x85R", 8000),
    "list to shape": again(LONG_LIST, name("torch", "Size") + get(1) + b"\x85R", 8000),
    "pairs to dictionary": again(PAIRS, name("collections", "OrderedDict") + get(1) + b"\x85R", 8000),
    "pairs to defaultdict": again(PAIRS, name("collections", "defaultdict") + b"N" + get(1) + b"\x86R", 8000),
    "text to bytes": again(LONG_TEXT, name("_codecs", "encode") + get(1) + text("latin1") + b"\x86R", 8000),
    "text to numpy": again(
        LONG_TEXT,
        name("numpy.core.multiarray", "scalar") + call(name("numpy", "dtype"), text("S300000")) + get(1) + b"\x86R",
        8000,
    ),
    "empty sets": EMPTY_LIST + MARK + b"\x8f" * 400_000 + b"e",
    "tensors that repeat one": dict_of(
        **{f"w{i}": tensor(size=(1 << 20, 4), stride=(0, 1)) for i in range(500)},
    ),
}


@pytest.mark.parametrize("how", MUCH)
def test_little_files_that_unfold_to_much(how, tmp_path):
    path = zip_file(tmp_path / "f.pth", MUCH[how])
    tracemalloc.start()
    line = line_of(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "is refused: reading it takes far more" in line
    assert peak < MOST_MEMORY


BOGUS = {
    "arguments without end": (again(MARK + b"N" * 100_000 + TUPLE, name("torch", "device") + get(1) + REDUCE, 50_000)),
    "numbers as text": again(text("1" * 300_000), name("builtins", "complex") + get(1) + b"\x85R", 8000),
    "a number of 4,000 digits": beside(text("n") + b"\x8b" + struct.pack("<i", 1700) + b"\x7f" * 1700),
    "a number of 4,000 digits as text": beside(text("n") + b"L" + b"9" * 4000 + b"L\n"),
    "a key of 4,000 digits": beside(b"\x8b" + struct.pack("<i", 1700) + b"\x7f" * 1700 + NONE),
    "a line without end": b"V" + b"x" * 2_000_000 + b"\n",
    "a line to the end of the file": b"V" + b"x" * 2_000_000,
    "a name without end": name("x" * 100_000, "y"),
    "a prefix again and again": EMPTY_DICT + text("module." * 150_000) + tensor() + SETITEM,
    "shapes of huge numbers": beside(
        text("n") + number(1 << 62) + put(1),
        *(
            text(f"k{i}")
            + call(
                name("torch._utils", "_rebuild_tensor_v2"),
                storage(),
                number(0),
                MARK + get(1) * 30 + TUPLE,
                MARK + get(1) * 30 + TUPLE,
                FALSE,
                NONE,
            )
            for i in range(100)
        ),
    ),
}


@pytest.mark.parametrize("how", BOGUS)
def test_costly_nonsense(how, tmp_path):
    assert "made." in line_of(zip_file(tmp_path / "made.pth", BOGUS[how]))


def test_keys_cannot_be_made_to_collide(tmp_path):
    """All multiples of 2 ** 61 - 1 have one hash in Python, and so have many tuples."""
    alike = b"".join(b"\x8a\x10" + (i * ((1 << 61) - 1)).to_bytes(16, "little") + b"N" for i in range(1, 20_000))
    pairs = b"".join(number(i) + number(i) + b"\x86N" for i in range(20_000))
    odd = beside(text("a") + EMPTY_DICT + MARK + alike + SETITEMS, text("b") + EMPTY_DICT + MARK + pairs + SETITEMS)
    assert list(torch_file.state_dict(zip_file(tmp_path / "f.pth", odd)).entries) == ["w"]


def test_a_dictionary_that_is_looked_into_again_and_again(tmp_path):
    inside = EMPTY_DICT + MARK + b"".join(text(str(i)) + NONE for i in range(20_000)) + SETITEMS + put(1)
    wrapped = EMPTY_DICT + MARK + text("model") + get(1) + SETITEMS
    content = (
        EMPTY_DICT + MARK + text("a") + inside + b"".join(text(f"b{i}") + wrapped for i in range(20_000)) + SETITEMS
    )
    assert "holds no state_dict" in line_of(zip_file(tmp_path / "f.pth", content))


def script(content):
    return name("__torch__.net", "Net") + EMPTY_TUPLE + NEWOBJ + content + BUILD


def test_modules_of_torchscript_that_hold_one_another(tmp_path):
    itself = EMPTY_DICT + put(0) + MARK + b"".join(text(f"a{i}") + get(0) for i in range(3000)) + SETITEMS
    constants = whole(EMPTY_TUPLE)
    assert "nested without end" in line_of(zip_file(tmp_path / "f.pth", script(itself), constants_pkl=constants))
    doubled = dict_of(w=tensor()) + put(0)
    for level in range(1, 30):
        doubled += b"0" + EMPTY_DICT + MARK + text("a") + get(level - 1) + text("b") + get(level - 1)
        doubled += SETITEMS + put(level)
    line = line_of(zip_file(tmp_path / "f.pth", script(doubled), constants_pkl=constants))
    assert "far more" in line
    shared = (
        dict_of(a=tensor()) + put(0) + b"0" + EMPTY_DICT + MARK + text("x") + get(0) + text("y") + get(0) + SETITEMS
    )
    found = torch_file.state_dict(zip_file(tmp_path / "f.pth", script(shared), constants_pkl=constants))
    assert list(found.entries) == ["x.a", "y.a"]


def test_many_records_over_the_same_bytes(tmp_path):
    count, size = 200, 1 << 16
    kind = ("torch", "ByteStorage")
    made = dict_of(**{f"w{i}": tensor(storage(f"{i:04d}", size, kind), size=(size,)) for i in range(count)})
    path = zip_file(tmp_path / "f.pth", made, {"0000": bytes(size)})
    raw = path.read_bytes()
    first, end = raw.rindex(b"PK\x01\x02"), raw.rindex(b"PK\x05\x06")
    more = b"".join(raw[first:end].replace(b"data/0000", b"data/%04d" % i) for i in range(1, count))
    total, length = struct.unpack("<HI", raw[end + 10 : end + 16])
    counts = struct.pack("<HHI", total + count - 1, total + count - 1, length + len(more))
    path.write_bytes(raw[:end] + more + raw[end : end + 8] + counts + raw[end + 16 :])
    assert "overlaps others" in line_of(path)


def test_an_endless_list_of_records(tmp_path):
    with zipfile.ZipFile(tmp_path / "f.pth", "w") as archive:
        archive.writestr("made/data.pkl", whole(beside()))
        extra = struct.pack("<HH", 0x4246, 60_000) + bytes(60_000)
        for number_ in range(200):
            info = zipfile.ZipInfo(f"made/{number_}")
            info.extra = extra
            archive.writestr(info, b"")
    assert "far more memory" in line_of(tmp_path / "f.pth")


@pytest.mark.parametrize(
    ("header", "body", "words"),
    [
        ({f"w{i}": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]} for i in range(2)}, 8, "invalid offset"),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}, 16, "invalid offset"),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, 12, "not fully covered"),
        (
            {"__metadata__": {"a": 1}, "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
            8,
            "expected a string",
        ),
        ({"__metadata__": [], "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, 8, "damaged"),
        ({"w": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 0]}}, 0, "overflow"),
        ({"w": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}, 8, "damaged"),
        (b'{"\\ud800": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', 8, "damaged"),
        (b'{"__metadata__": {"a": "' + b"x" * (5 << 20) + b'"}}', 0, "its header has"),
        ({"w": {"dtype": "F32", "shape": [0, 1 << 60], "data_offsets": [0, 0]}}, 0, "asks for w, a tensor of shape"),
    ],
)
def test_safetensors_are_refused_as_the_library_refuses_them(header, body, words, tmp_path):
    (tmp_path / "f.safetensors").write_bytes(safetensors_bytes(header, bytes(body)))
    assert words in line_of(tmp_path / "f.safetensors")


def test_names_are_shown_escaped_and_cut(tmp_path, capsys):
    from mmreid_jax.commands.convert import main

    lone = b"X\x03\x00\x00\x00\xed\xa0\x80"
    odd = EMPTY_DICT + MARK + lone + tensor() + text("\x1b[31m\n\r\u202e") + tensor() + text("y" * 500) + tensor()
    path = zip_file(tmp_path / "f.pth", odd + SETITEMS)
    line = line_of(path, lambda path: store.open_weights(path, "resnet50"))
    main(["--list", "--source", str(path)])
    printed = capsys.readouterr().out
    for shown in (line, printed):
        assert "\\ud800" in shown
        assert "\\x1b[31m\\n\\r\\u202e" in shown
        assert "y" * 200 not in shown
        assert shown.replace("\n", "").isprintable()


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "dangling.pth").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.pth").symlink_to(tmp_path / "loop.pth")
    assert "is a pipe or a device" in line_of(tmp_path / "pipe.pth")
    assert "there is no file" in line_of(tmp_path / "dangling.pth")
    assert "cannot be read" in line_of(tmp_path / "loop.pth")
    assert "cannot be read" in line_of(tmp_path / ("x" * 300))
    assert "cannot be read" in line_of("a\0b")
    assert "pipe or a device" in line_of("/dev/null")


def good_files():
    """Sound files of every format, by name."""
    rng = np.random.default_rng(0)
    arrays = {f"layer{i}.weight": rng.normal(size=(2, 3)).astype(np.float32) for i in range(3)}
    odd = {"args": call(name("argparse", "Namespace")) + dict_of(lr=number(1)) + BUILD, "size": numbers(2, 3)}
    content = dict_of(state_dict=dict_of(a=tensor(), b=tensor(offset=1, size=(3,))), epoch=number(3), **odd)
    dtype = call(name("numpy", "dtype"), text("f4"), FALSE, b"\x88")
    made = call(name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"), numbers(0), text("b"))
    array = made + tuple_of(number(1), numbers(4), dtype, FALSE, b"C\x10" + FOUR.tobytes()) + BUILD
    return {
        "zip.pth": lambda path: zip_file(path, content),
        "script.pth": lambda path: zip_file(path, script(dict_of(a=tensor())), constants_pkl=whole(EMPTY_TUPLE)),
        "legacy.t": lambda path: legacy_file(path, content),
        "plain.pkl": lambda path: path.write_bytes(whole(dict_of(w=array, many=EMPTY_LIST + number(1) + APPEND))),
        "python.pkl": lambda path: path.write_bytes(pickle.dumps({"w": FOUR, "x": [1.5, {2}, "a"]}, 4)),
        "f.safetensors": lambda path: path.write_bytes(safetensors_of(arrays, {"format": "pt"})),
    }


def damaged(raw, rng):
    """Bytes with a few random faults: changed, cut out, doubled, swapped, or numbers made large."""
    raw = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, kind = rng.randrange(len(raw)), rng.randrange(6)
        if kind == 0:
            raw[at] = rng.randrange(256)
        elif kind == 1:
            del raw[at : at + rng.choice((1, 4, 40))]
        elif kind == 2:
            raw[at:at] = raw[at : at + rng.choice((1, 4, 40))]
        elif kind == 3:
            raw[at : at + 4] = rng.choice((b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", bytes(4), b"\x80\x00\x00\x00"))
        elif kind == 4:
            raw[at] = rng.choice(b"(.0123NRbcdeghjlopqrstu}])\x81\x82\x85\x86\x87\x8a\x8b\x8f\x90\x91\x92\x93\x94\x95X")
        else:
            other = rng.randrange(len(raw))
            raw[at], raw[other] = raw[other], raw[at]
        if not raw:
            return b"\x80"
    return bytes(raw)


def stream(rng, length):
    """A pickle of random opcodes with mostly sensible arguments."""
    texts = ("w", "state_dict", "storage", "0", "cpu", "", "f4", "torch", "Size", "\ud800", "__torch__.x")
    names = [("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor_v3"), ("torch", "Size")]
    names += [("torch", "FloatStorage"), ("collections", "OrderedDict"), ("numpy", "dtype"), ("numpy", "ndarray")]
    names += [("numpy.core.multiarray", "_reconstruct"), ("numpy.core.multiarray", "scalar"), ("builtins", "set")]
    names += [("argparse", "Namespace"), ("torch._tensor", "_rebuild_from_type_v2"), ("_codecs", "encode")]
    names += [
        ("torch._utils", "_rebuild_parameter"),
        ("builtins", "complex"),
        ("torch", "float16"),
        ("torch", "QInt8Storage"),
    ]
    makers = [
        lambda: rng.choice((b"N", b"\x88", b")", b"]", b"}", b"\x8f", b"(", b"K\x01", b"K\x00", b"J\xff\xff\xff\x7f")),
        lambda: (
            b"X" + (lambda raw: struct.pack("<I", len(raw)) + raw)(rng.choice(texts).encode("utf-8", "surrogatepass"))
        ),
        lambda: name(*rng.choice(names)),
        lambda: rng.choice(
            (b"t", b"\x85", b"\x86", b"\x87", b"R", b"b", b"\x81", b"\x92", b"Q", b"s", b"u", b"a", b"e")
        ),
        lambda: rng.choice(
            (b"d", b"l", b"\x90", b"\x91", b"0", b"1", b"2", b"o", b"\x94", b"h\x00", b"h\x01", b"q\x00")
        ),
        lambda: rng.choice((tensor(), storage(), numbers(2, 2), dict_of(w=tensor()), b"C\x10" + FOUR.tobytes())),
    ]
    return START + b"".join(rng.choice(makers)() for _ in range(length)) + b"."


def fuzz(folder, seed, rounds):
    rng = random.Random(seed)
    files = good_files()
    for called, write in files.items():
        write(folder / called)
    sound = {called: (folder / called).read_bytes() for called in files}
    for called in sound:
        assert line_of(folder / called) is None, called
    for _ in range(rounds):
        for called, raw in sound.items():
            line_of(anew(folder / called, damaged(raw, rng)))
        (folder / "random.pth").unlink(missing_ok=True)
        line_of(zip_of_stream(folder / "random.pth", stream(rng, rng.randrange(1, 60))))
        line_of(anew(folder / "random.pkl", stream(rng, rng.randrange(1, 60))))


def anew(path, content):
    """Writes a file; one that is emptied instead of deleted has a disk wait for it each time."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return path


def zip_of_stream(path, content):
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("made/data.pkl", content)
        out.writestr("made/data/0", FOUR.tobytes())
    return path


def test_random_damage(tmp_path):
    fuzz(tmp_path, 0, 150)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_much_random_damage(tmp_path, seed):
    fuzz(tmp_path, seed, 4000)


def test_random_damage_to_an_index(tmp_path):
    rng = random.Random(0)
    (tmp_path / "a.safetensors").write_bytes(safetensors_of({"w": FOUR}))
    sound = json.dumps({"metadata": {}, "weight_map": {"w": "a.safetensors"}}).encode()
    index = tmp_path / "model.safetensors.index.json"
    for _ in range(300):
        index.write_bytes(damaged(sound, rng))
        line_of(index)
    index.write_bytes(sound)
    assert line_of(index) is None


def test_random_shapes_do_not_surprise_a_layout(tmp_path):
    """Names of a family with arrays of any shape, through the layouts that also look at shapes."""
    rng = np.random.default_rng(0)
    shapes = ((), (0,), (3,), (2, 3), (1, 5, 4), (2, 3, 4, 5), (0, 3, 1), (1, 1, 1, 1, 1))
    named = {
        "vit": ["cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.norm1.weight", "norm.weight"],
        "clip": ["visual.conv1.weight", "visual.positional_embedding", "visual.proj", "positional_embedding"],
        "clip_hf": [
            "vision_model.embeddings.position_embedding.weight",
            "text_model.encoder.layers.0.self_attn.q_proj.weight",
            "text_model.encoder.layers.0.self_attn.k_proj.weight",
            "text_model.encoder.layers.0.self_attn.v_proj.weight",
            "visual_projection.weight",
        ],
        "htt": ["base.pos_embed", "base.cls_token", "classifier.weight"],
        "tvi_lfm": ["base_model.visual.visible.resnet_conv.0.weight", "classifier.classifier.weight", "logit_scale"],
    }
    for layout, names in named.items():
        for _ in range(10):
            arrays = {key: np.zeros(shapes[rng.integers(len(shapes))], np.float32) for key in names}
            path = tmp_path / "f.safetensors"
            path.write_bytes(safetensors_of(arrays))
            assert line_of(path, lambda path, layout=layout: store.open_weights(path, layout)) is not None
