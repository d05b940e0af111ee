"""What a command may overwrite: nothing that this program did not write, and nothing before the new is complete."""

from __future__ import annotations

import json
import os
import pathlib
import re

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from mmreid_jax import evaluate, owned
from mmreid_jax.commands import convert as command
from mmreid_jax.convert import store
from mmreid_jax.errors import UserError
from mmreid_jax.visualize import curves, report
from mmreid_jax.visualize.canvas import Canvas
from tests.commands.test_convert import vit_entries


@pytest.fixture
def source(tmp_path):
    save_file(vit_entries(), tmp_path / "vit.safetensors")
    return str(tmp_path / "vit.safetensors")


@pytest.fixture
def convert(source):
    def run(out, *more):
        command.main(["--layout", "vit", "--source", source, "--out", str(out), *more])

    return run


def everything(folder):
    """Every file below a folder and its bytes, links as what they point to."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


def test_the_mark(convert, tmp_path):
    convert(tmp_path / "out")
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert meta["written_by"] == "mmreid_jax"
    assert meta["version"]
    assert set(meta["files"]) == set(owned.files_of(tmp_path / "out"))
    assert "meta.json" in meta["files"]


def test_one_of_ours_is_replaced(convert, tmp_path):
    convert(tmp_path / "out")
    convert(tmp_path / "out", "--overwrite")
    assert store.load(tmp_path / "out")[1]["layout"] == "vit"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "vit.safetensors"]
    (tmp_path / "empty").mkdir()
    convert(tmp_path / "empty", "--overwrite")
    assert store.load(tmp_path / "empty")[1]["layout"] == "vit"


METAS = ["{}", "[]", "", "\0", "null", '{"layout": "vit", "arrays": {}}', '{"written_by": "mmreid_jax"}']
METAS += ['{"written_by": "another", "files": ["thesis.tex", "meta.json"]}', '{"written_by": "mmreid_jax", "files": 3}']
METAS += ['{"written_by": "mmreid_jax", "files": [["thesis.tex"], {}]}', "[" * 5000]
METAS += ['{"written_by": "mmreid_jax", "files": ["meta.json"]}', '{"written_by": "mmreid_jax", "files": []}']


@pytest.mark.parametrize("meta", METAS)
def test_directories_of_others_stay(convert, tmp_path, meta):
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "sub" / "thesis.tex").write_text("words")
    (out / "meta.json").write_text(meta)
    before = everything(tmp_path)
    with pytest.raises(UserError, match="not overwritten"):
        convert(out, "--overwrite")
    assert everything(tmp_path) == before


@pytest.mark.parametrize("extra", ["notes.txt", "variables/notes.txt", "link", "deep/er/notes.txt"])
def test_what_somebody_put_beside_ours_stays(convert, tmp_path, extra):
    convert(tmp_path / "out")
    place = tmp_path / "out" / extra
    place.parent.mkdir(parents=True, exist_ok=True)
    if extra == "link":
        place.symlink_to(tmp_path / "vit.safetensors")
    else:
        place.write_text("words")
    before = everything(tmp_path)
    with pytest.raises(UserError, match=rf"it also holds {re.escape(extra)}, which"):
        convert(tmp_path / "out", "--overwrite")
    assert everything(tmp_path) == before


def test_a_list_that_reaches_outside_deletes_nothing(convert, tmp_path):
    (tmp_path / "precious").write_text("words")
    convert(tmp_path / "out")
    meta = tmp_path / "out" / "meta.json"
    listed = json.loads(meta.read_text())
    listed["files"] += ["../precious", str(tmp_path / "precious"), "variables/../../precious", "nowhere"]
    meta.write_text(json.dumps(listed))
    convert(tmp_path / "out", "--overwrite")
    assert (tmp_path / "precious").read_text() == "words"


def test_links(convert, tmp_path):
    """A link is followed to where it points; what it points to is judged, and the link stays."""
    convert(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    convert(tmp_path / "link", "--overwrite")
    assert (tmp_path / "link").is_symlink()
    assert store.load(tmp_path / "real")[1]["layout"] == "vit"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").write_text("words")
    (tmp_path / "other").symlink_to("thesis")
    (tmp_path / "loop").symlink_to("loop")
    before = everything(tmp_path)
    for name in ("other", "loop"):
        with pytest.raises(UserError, match=r"not overwritten|cannot be written"):
            convert(tmp_path / name, "--overwrite")
    assert everything(tmp_path) == before
    (tmp_path / "file").write_text("words")
    with pytest.raises(UserError, match="it is no directory"):
        convert(tmp_path / "file", "--overwrite")
    with pytest.raises(UserError, match="exists already"):
        convert(tmp_path / "file")


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failed_exchange_leaves_the_old(convert, tmp_path, monkeypatch, failing):
    convert(tmp_path / "out")
    before = everything(tmp_path)
    rename, calls = pathlib.Path.rename, []

    def fail(path, target):
        calls.append(path)
        # Orbax renames as well, below the directory that is being made.
        if "out" in (path.name, pathlib.Path(target).name):
            fail.count += 1
            if fail.count == failing:
                raise OSError(5, "Input/output error")
        return rename(path, target)

    fail.count = 0
    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "rename", fail)
        with pytest.raises(UserError, match="Input/output error"):
            convert(tmp_path / "out", "--overwrite")
    assert fail.count >= failing
    assert everything(tmp_path) == before


def test_the_target_is_judged_before_the_work(convert, source, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("words")
    monkeypatch.setattr(store, "open_weights", lambda *_, **__: 1 / 0)
    with pytest.raises(UserError, match="not overwritten"):
        convert(tmp_path / "out", "--overwrite")
    with pytest.raises(UserError, match="exists already"):
        convert(tmp_path / "out")


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
class TestExportedFiles:
    @pytest.fixture
    def export(self, convert, tmp_path, ending):
        convert(tmp_path / "vit")

        def run(*more, out="w"):
            path = tmp_path / f"{out}{ending}"
            command.main(["--export", "--source", str(tmp_path / "vit"), "--out", str(path), *more])
            return path

        return run

    def test_one_of_ours_is_replaced_when_asked(self, export):
        path = export()
        first = path.read_bytes()
        with pytest.raises(UserError, match="exists already"):
            export()
        for _ in range(4):
            export("--overwrite")
            assert path.read_bytes() == first

    def test_files_of_others_stay(self, export, tmp_path, ending):
        path = tmp_path / f"w{ending}"
        save_file({"w": np.ones(3)}, path)
        for content in (path.read_bytes(), b"words", b"PK\x03\x04", b"\x08\0\0\0\0\0\0\0{}      "):
            path.write_bytes(content)
            with pytest.raises(UserError, match="not overwritten"):
                export("--overwrite")
            assert path.read_bytes() == content
        path.unlink()
        path.mkdir()
        with pytest.raises(UserError, match="not overwritten"):
            export("--overwrite")

    def test_full_disk(self, export, tmp_path, monkeypatch):
        path = export()
        before = everything(tmp_path)

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(UserError, match="No space left on device"):
            export("--overwrite")
        assert everything(tmp_path) == before
        assert path.exists()


class TestWorkDirectory:
    """A report is written at the end of hours, so its place is looked at before them."""

    @pytest.mark.parametrize("name", ["report.html", "figures/mine.png"])
    def test_of_no_run(self, tmp_path, name):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"words")
        before = everything(tmp_path)
        with pytest.raises(UserError, match=rf"{re.escape(name)} is not overwritten: it is no (page|picture)"):
            evaluate.alone_in(tmp_path)
        assert everything(tmp_path) == before

    def test_of_a_run(self, tmp_path):
        """Also of one by an earlier version, whose pictures have no mark."""
        report.write_report(tmp_path, report.HtmlReport("a run"))
        with evaluate.alone_in(tmp_path):
            pass
        (tmp_path / "report.html").write_text("without a mark")
        (tmp_path / "metrics.jsonl").touch()
        with evaluate.alone_in(tmp_path):
            pass


@pytest.mark.parametrize("make", ["chart", "photographs"])
def test_pictures_have_the_mark(tmp_path, make):
    if make == "chart":
        picture = curves.cmc_curves({"a": np.array([0.5, 1.0])})
    else:
        canvas = Canvas(20, 40)
        picture = canvas.picture(name="photographs", alt="", caption="")
    path = picture.write(tmp_path)
    assert owned.is_picture(path)
    Image.open(path).save(path)
    assert not owned.is_picture(path)
