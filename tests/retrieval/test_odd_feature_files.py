"""Feature files of other programs, damaged and hostile ones: they are read, or refused in one clear line."""

from __future__ import annotations

import io
import json
import random
import tracemalloc
import zipfile

import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import feature_files, metrics

COUNT, WIDTH = 12, 4
NOTE = {
    "dataset": "rgbnt201",
    "protocol": "",
    "distance": "",
    "rerank": {"k1": 3, "k2": 2, "lambda_value": 0.3, "distance": "euclidean"},
}


def arrays():
    rng = np.random.default_rng(0)
    return {
        "features": rng.normal(size=(COUNT, WIDTH)).astype(np.float32),
        "identity": np.arange(COUNT) // 2,
        "camera": np.arange(COUNT) % 2,
        "scene": np.zeros(COUNT, int),
        "files": np.array([f"{i}.jpg" for i in range(COUNT)]),
        "note": np.array(json.dumps(NOTE)),
    }


def line_of(path):
    """The line that a file is refused with; None: it is read, and then it makes sense."""
    try:
        found = feature_files.load(path)
    except UserError as error:
        line = str(error)
        assert line.isprintable()
        assert len(line) < 1000
        return line
    count, width = found.features.shape
    assert count
    assert width
    assert found.features.dtype in (np.float16, np.float32, np.float64)
    assert found.files.shape == (count,)
    assert all(isinstance(name, str) for name in found.files.tolist())
    assert isinstance(found.note, dict)
    for column in () if found.labels is None else (found.labels.identity, found.labels.camera, found.labels.scene):
        assert column.dtype == np.int64
        assert column.shape == (count,)
    return None


def refused(path, words):
    line = line_of(path)
    assert line is not None, "it is read"
    assert words in line


def saved(tmp_path, **changed):
    whole = {name: value for name, value in {**arrays(), **changed}.items() if value is not None}
    np.savez(tmp_path / "f.npz", **whole)
    return tmp_path / "f.npz"


FEATURES = arrays()["features"]


@pytest.mark.parametrize(
    "changed",
    [
        {"features": FEATURES.astype(np.float64)},
        {"features": FEATURES.astype(np.float16)},
        {"features": FEATURES.astype(">f4")},
        {"features": np.asfortranarray(FEATURES)},
        {"features": 0 * FEATURES},
        {"identity": np.arange(COUNT, dtype=np.uint8), "camera": np.arange(COUNT, dtype=">i2")},
        {"identity": np.full(COUNT, -(2**63)), "camera": np.full(COUNT, 2**63 - 1, np.uint64)},
        {"identity": None},
        {"scene": None},
        {"files": None, "note": None},
        {"files": np.array([b"a\xff.jpg"] * COUNT)},
        {"files": np.array(["\udcff.jpg", "a\nb"] * (COUNT // 2))},
        {"files": np.array(["x"] * COUNT).astype(">U1")},
        {"note": np.array(json.dumps({"anything": [1, {"else": None}]}))},
        {"note": np.array(json.dumps(NOTE).encode())},
        {"more": np.zeros((3, 3))},
    ],
)
def test_what_is_read(tmp_path, changed):
    path = saved(tmp_path, **changed)
    assert line_of(path) is None
    np.testing.assert_array_equal(feature_files.load(path).features, changed.get("features", FEATURES))


FINITE = "some features are not finite: those of 1 of 12 images, first of 5.jpg (row 5)"
LARGE = "some features are too large to compare: those of 12 of 12 images, first of 0.jpg (row 0)"
WRONG = np.where(np.arange(COUNT)[:, None] == 5, np.nan, FEATURES)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"features": None}, "it holds no array called features"),
        ({"features": FEATURES.astype(complex)}, "features are complex128; store them as float32"),
        ({"features": FEATURES > 0}, "features are bool"),
        ({"features": FEATURES.astype(int)}, "features are int64"),
        ({"features": FEATURES.astype(str)}, "features are <U"),
        ({"features": FEATURES.astype(np.longdouble)}, "features are float128"),
        ({"features": np.zeros((COUNT, WIDTH), [("a", "f4")])}, "features are [('a', '<f4')]"),
        ({"features": np.zeros((COUNT, WIDTH), "M8[D]")}, "features are datetime64"),
        ({"features": np.float32(3)}, "features must be [number, dimension]"),
        ({"features": FEATURES[0]}, "features must be [number, dimension]"),
        ({"features": FEATURES[None]}, "features must be [number, dimension]"),
        ({"features": FEATURES[:, :0]}, "holds no features"),
        ({"features": FEATURES[:0]}, "holds no features"),
        ({"features": FEATURES[:5]}, "they are [5, 4] and [12]"),
        ({"features": WRONG}, FINITE),
        ({"features": np.where(np.isnan(WRONG), -np.inf, WRONG)}, FINITE),
        ({"features": np.full((COUNT, WIDTH), 1e300)}, LARGE),
        ({"identity": np.arange(COUNT) / 2}, "identity must be whole numbers [number]; it is float64 [12]"),
        ({"identity": np.arange(COUNT).astype(str)}, "identity must be whole numbers"),
        ({"identity": np.arange(COUNT) > 3}, "identity must be whole numbers"),
        ({"identity": np.arange(COUNT)[None]}, "identity must be whole numbers"),
        ({"identity": np.full(COUNT, 2**64 - 1, np.uint64)}, "identity holds numbers beyond those of 64 bits"),
        ({"identity": np.arange(COUNT - 1)}, "labels [number]"),
        ({"camera": np.arange(COUNT) * 1j}, "camera must be whole numbers"),
        ({"scene": np.zeros(COUNT)}, "scene must be whole numbers"),
        ({"files": np.arange(COUNT)}, "files must be names of images"),
        ({"files": np.array("one")}, "files must be names of images"),
        ({"files": np.array(["x"] * (COUNT + 1))}, "labels [number]"),
        ({"files": np.frombuffer(b"\xff" * 4 * COUNT, "<U1")}, "files hold what is no text"),
        ({"files": np.array(["x" * 5000] * COUNT)}, "files hold a name of 5,000 characters"),
        ({"note": np.array("features of my network")}, "the note is not one of mmreid_jax extract"),
        ({"note": np.array(3)}, "the note is not one of"),
        ({"note": np.array(["{}"])}, "the note is not one of"),
        ({"note": np.array("[]")}, "it is no JSON object"),
        ({"note": np.array("[" * 20_000)}, "the note is not one of"),
        ({"note": np.array(b"\xff")}, "the note is not one of"),
        ({"note": np.array('{"protocol": 3}')}, "its protocol is no text"),
        ({"note": np.array('{"rerank": []}')}, "its rerank is no JSON object"),
        ({"note": np.array('{"rerank": {"k1": "5"}}')}, "its rerank has k1 = 5"),
        ({"note": np.array('{"rerank": {"k1": true}}')}, "its rerank has k1 = True"),
        ({"note": np.array('{"rerank": {"k9": 1}}')}, "its rerank has k9 = 1"),
        ({"note": np.array('{"rerank": {"\\u001b[31m": 1}}')}, "\\x1b[31m"),
    ],
)
def test_what_is_refused(tmp_path, changed, words):
    refused(saved(tmp_path, **changed), words)


def test_python_objects_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "f.npz", **{**arrays(), "files": np.array([object()] * COUNT, object)})
    refused(tmp_path / "f.npz", "files holds Python objects")
    np.save(tmp_path / "f.npy", np.array([[object()]], object))
    refused(tmp_path / "f.npy", "is not a feature file")


def member(header, content=b"", version=(1, 0)):
    """A record with a header of one's own."""
    raw = header.encode()
    length = len(raw).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + length + raw + content


def described(shape, dtype="<f4"):
    return f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}}}\n"


LIES = {
    "more than it has": member(described("(1000, 4)"), bytes(16)),
    "less than it has": member(described("(1, 4)"), bytes(32)),
    "a huge shape": member(described("(1000000000000, 4)"), bytes(16)),
    "a product beyond 64 bits": member(described("(99999999999999999999, 99999999999999999999)"), bytes(16)),
    "a huge empty shape": member(described("(0, 99999999999999999999)")),
    "negative": member(described("(-1, 4)"), bytes(16)),
    "huge text": member(described("(1,)", "<U1000000000"), bytes(16)),
    "no text": member(described("(10000000000,)", "<U0")),
    "structures of arrays": member(
        "{'descr': [('a', '<f4', (100000, 100000))], 'fortran_order': False, 'shape': (1,)}\n"
    ),
    "an open bracket": member("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4"),
    "brackets": member("(" * 5000),
    "lists": member("[" * 4000 + "]" * 4000),
    "long": member("{" + " " * 60_000 + "}"),
    "longer": member("{" + " " * 3_000_000 + "}", version=(2, 0)),
    "long numbers": member(described("(" + "9" * 5000 + ",)")),
    "another version": member(described("(1, 4)"), bytes(16), (9, 9)),
    "nothing": b"",
    "words": b"only words",
    "a call": member("__import__('os').system('touch mmreid_pwned')"),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("name", ["features", "note", "files"])
def test_headers_that_lie(tmp_path, monkeypatch, lie, name):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "f.npz", **{key: value for key, value in arrays().items() if key != name})
    with zipfile.ZipFile(tmp_path / "f.npz", "a") as archive:
        archive.writestr(f"{name}.npy", LIES[lie])
    tracemalloc.start()
    refused(tmp_path / "f.npz", "is not a feature file of mmreid_jax extract")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20
    if name == "features":
        (tmp_path / "f.npy").write_bytes(LIES[lie])
        if lie != "less than it has":
            assert line_of(tmp_path / "f.npy") is not None
    assert not (tmp_path / "mmreid_pwned").exists()


def test_archives_that_unfold_to_much(tmp_path, monkeypatch):
    with (
        zipfile.ZipFile(tmp_path / "f.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("features.npy", "w") as out,
    ):
        # 8 MB of zeros, whose header says that they are 4 GiB.
        out.write(member(described(f"({1 << 28}, 4)")) + bytes(8 << 20))
    refused(tmp_path / "f.npz", "says that it is [268435456, 4], which its 8,388,")
    np.savez_compressed(tmp_path / "f.npz", features=np.zeros((1 << 14, 128), np.float32))
    monkeypatch.setattr(feature_files, "_FREE_BYTES", 1 << 20)
    refused(tmp_path / "f.npz", "unfolds to 8,388,736 bytes, far more than the file has")


def test_what_is_no_file(tmp_path):
    for name in ("absent.npz", "absent.npy"):
        refused(tmp_path / name, "there is no file")
    (tmp_path / "folder.npz").mkdir()
    refused(tmp_path / "folder.npz", "is not a feature file")
    np.savez(tmp_path / "archive.npz", **arrays())
    (tmp_path / "archive.npz").rename(tmp_path / "archive.npy")
    refused(tmp_path / "archive.npy", "is not a feature file")


def test_only_feature_files_are_overwritten(tmp_path):
    stored = feature_files.Features(FEATURES, arrays()["files"], None, NOTE)
    feature_files.save(tmp_path / "f.npz", stored)
    feature_files.save(tmp_path / "f.npz", stored)
    np.savez(tmp_path / "f.npz", mine=np.ones(3))
    before = (tmp_path / "f.npz").read_bytes()
    with pytest.raises(UserError, match=r"f\.npz is not overwritten: it is no feature file that mmreid_jax wrote"):
        feature_files.save(tmp_path / "f.npz", stored)
    assert (tmp_path / "f.npz").read_bytes() == before
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "notes.txt").write_text("words")

    def write():
        return feature_files.write(folder, arrays()["files"], None, NOTE, "m", lambda a, b: iter([FEATURES[a:b]]))

    write()
    write()
    assert (folder / "notes.txt").read_text() == "words"
    (folder / "table.npz").unlink()
    with pytest.raises(UserError, match=r"features\.npy is not overwritten"):
        write()
    np.savez(folder / "table.npz", mine=np.ones(3))
    with pytest.raises(UserError, match=r"table\.npz is not overwritten"):
        write()


def test_read_only_arrays_are_none(tmp_path):
    found = feature_files.load(saved(tmp_path))
    features = found.features
    features *= 2
    np.testing.assert_array_equal(found.features, 2 * FEATURES)
    assert isinstance(found.labels, metrics.Labels)


def fuzz(folder, seed, rounds):
    rng = random.Random(seed)
    sounds = []
    for save in (np.savez, np.savez_compressed):
        out = io.BytesIO()
        save(out, **arrays())
        sounds.append(("f.npz", out.getvalue()))
    out = io.BytesIO()
    np.save(out, FEATURES)
    sounds.append(("f.npy", out.getvalue()))
    for _ in range(rounds):
        for name, sound in sounds:
            raw = bytearray(sound)
            for _ in range(rng.choice((1, 2, 6))):
                if not raw:
                    break
                at = rng.randrange(len(raw))
                kind = rng.randrange(4)
                if kind == 0:
                    raw[at] = rng.randrange(256)
                elif kind == 1:
                    del raw[at : at + rng.choice((1, 8, 200))]
                elif kind == 2:
                    raw[at:at] = raw[at : at + rng.choice((1, 8, 200))]
                else:
                    raw[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", bytes(4), b"9999", b"(((("))
            (folder / name).write_bytes(bytes(raw))
            line_of(folder / name)


def test_random_damage(tmp_path):
    fuzz(tmp_path, 0, 150)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_much_random_damage(tmp_path, seed):
    fuzz(tmp_path, seed, 4000)
