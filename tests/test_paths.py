"""Paths that users name, in every spelling, and outputs that are tried before the work."""

import errno
import os
import re
import resource
import stat
from pathlib import Path

import pytest

from mmreid_jax import flags, owned, paths
from mmreid_jax.captioning import text_files
from mmreid_jax.commands import average
from mmreid_jax.convert import store
from mmreid_jax.datasets import catalogue
from mmreid_jax.errors import UserError, printable, run_command
from mmreid_jax.training import config as configs


@pytest.mark.parametrize("written", ["~/x y", "a/../b", "/ä/日本", " lead", "x\n"])
def test_a_path_is_taken_as_it_is_written_but_for_the_home(written, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.path_of(written) == Path(written.replace("~", "/home/me"))
    assert paths.path_of(Path(written)) == paths.path_of(written)


@pytest.mark.parametrize(
    ("written", "said"), [("", "is empty"), ("  ", "is empty"), ("a\0b", "null byte"), ("~nobody_here/x", "no home")]
)
def test_what_is_no_path(written, said):
    with pytest.raises(UserError, match=said):
        paths.path_of(written)


def test_the_home_in_a_config_and_in_the_name_of_its_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    source = Path(__file__).parents[1] / "configs"
    for name in ("common.py", "demo.py"):
        (tmp_path / name).write_text((source / name).read_text())
    monkeypatch.chdir(source.parent)
    keys = [f"--config.{key}=~/{key}" for key in configs.PATHS]
    config, name = flags.from_arguments([f"--config={tmp_path.as_posix().replace(str(tmp_path), '~')}/demo.py", *keys])
    assert name == "demo"
    flat = configs.flatten(config)
    assert [flat[key] for key in configs.PATHS] == [str(tmp_path / key) for key in configs.PATHS]


class TestFileProblem:
    def test_every_kind_of_file(self, tmp_path):
        (tmp_path / "empty").touch()
        (tmp_path / "folder").mkdir()
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "dangling").symlink_to("nowhere")
        (tmp_path / "circle").symlink_to("circle")
        (tmp_path / "large").write_bytes(b"123")
        (tmp_path / "linked").symlink_to("large")
        found = {path.name: paths.file_problem(path, 3) for path in tmp_path.iterdir()}
        assert found == {
            "empty": "the file is empty",
            "folder": "a folder",
            "pipe": "no regular file, but a pipe, socket or device",
            "dangling": "a link to nothing",
            "circle": found["circle"],
            "large": "",
            "linked": "",
        }
        assert "symbolic links" in found["circle"]
        assert "more than" in paths.file_problem(tmp_path / "large", 2)
        assert paths.file_problem(tmp_path / "gone") == "there is no such file"
        assert "too long" in paths.file_problem(tmp_path / ("x" * 300))
        assert paths.file_problem(tmp_path / "large" / "below")


class TestOutputs:
    def test_what_can_be_written_leaves_no_trace(self, tmp_path):
        paths.check_output(tmp_path / "a" / "b" / "ü x.npz", "--out")
        paths.check_output(tmp_path / "a" / "b", "--out", folder=True)
        assert list(tmp_path.iterdir()) == []

    def test_what_is_in_the_way(self, tmp_path):
        (tmp_path / "file").write_text("x")
        for path, folder, said in [
            (tmp_path / "file", True, "is a file; name a folder"),
            (tmp_path, False, "is a folder; name a file"),
            (tmp_path / "file" / "below", False, "cannot be written"),
            (tmp_path / "file" / "below", True, "cannot be written"),
            (tmp_path / ("x" * 300), False, "too long"),
        ]:
            with pytest.raises(UserError, match=rf"--out .*{said}"):
                paths.check_output(path, "--out", folder=folder)
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_too_little_space(self, tmp_path):
        with pytest.raises(UserError, match=r"needs 1048576\.00 GiB"):
            paths.check_output(tmp_path / "x.npz", "--out", size=1 << 50)

    def test_a_disk_that_is_full_already(self, tmp_path):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            with pytest.raises(UserError, match=r"--out .*cannot be written \(file too large\)"):
                paths.check_output(tmp_path / "x.npz", "--out")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def test_nothing_is_left_of_a_file_that_is_not_complete(self, tmp_path):
        (tmp_path / "out").write_text("before")

        def fail(error):
            with paths.whole(tmp_path / "out") as part:
                part.write_text("half")
                raise error

        for error in (OSError(28, "No space left on device"), KeyboardInterrupt()):
            with pytest.raises(type(error)):
                fail(error)
            assert [path.name for path in tmp_path.iterdir()] == ["out"]
            assert (tmp_path / "out").read_text() == "before"
        with paths.whole(tmp_path / "out") as part:
            part.write_text("after")
        assert (tmp_path / "out").read_text() == "after"

    @pytest.mark.parametrize(
        "error", [OSError(errno.ENOSPC, "No space left on device"), OSError("8 requested, 3 written")]
    )
    def test_an_error_names_the_file(self, tmp_path, error):
        said = error.strerror or str(error)

        def write():
            with paths.whole(tmp_path / "out") as part:
                part.write_text("half")
                raise error

        with pytest.raises(OSError, match=re.escape(said)) as caught:
            write()
        assert (caught.value.filename, caught.value.strerror) == (str(tmp_path / "out"), said)
        assert not list(tmp_path.iterdir())

    def test_what_was_computed_is_kept_elsewhere(self, tmp_path, monkeypatch):
        monkeypatch.setattr(paths.tempfile, "tempdir", str(tmp_path / "spare"))
        (tmp_path / "spare").mkdir()

        def write(path):
            if path.is_relative_to(tmp_path / "full"):
                raise OSError(errno.ENOSPC, "No space left on device")
            path.write_text("hours of work")

        with pytest.raises(UserError, match=r"full/x\.npz cannot be written \(no space left on device\)") as caught:
            paths.write_or_rescue(tmp_path / "full" / "x.npz", write)
        rescued = Path(str(caught.value).split(" is in ")[1])
        assert rescued.read_text() == "hours of work"
        assert not stat.S_IMODE(rescued.parent.stat().st_mode) & 0o077
        monkeypatch.setattr(paths.tempfile, "tempdir", str(tmp_path / "full"))
        with pytest.raises(UserError, match="nor could any temporary file"):
            paths.write_or_rescue(tmp_path / "full" / "x.npz", write)


class TestPrintable:
    def test_letters_stay_and_orders_to_a_terminal_do_not(self):
        assert printable("Zoë 图像.png") == "Zoë 图像.png"
        assert printable("a\x1b[31m\n\t\x07\u202eb\udcff") == r"a\x1b[31m\n\t\x07\u202eb\udcff"
        assert len(printable("\n" * 500)) == len(printable("x" * 500)) == 200
        assert printable("x" * 200) == "x" * 200


@pytest.mark.parametrize(
    "error",
    [PermissionError(13, "Permission denied", "/secret/x\n"), OSError(36, "File name too long", "y" * 300)],
)
def test_what_the_system_says_of_a_file_is_one_line(error, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as stopped:
        run_command(main)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(error.strerror)
    assert line.startswith("error: ")


def test_an_error_of_the_program_is_not_hidden():
    def main():
        raise OSError("no file is named")

    with pytest.raises(OSError, match="no file"):
        run_command(main)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
@pytest.mark.parametrize("name", ["x.json", "x.npy"])
def test_nobody_waits_for_a_pipe(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(OSError, match="it is no regular file, but a pipe"):
        paths.read_json(tmp_path / name)
    with pytest.raises(UserError, match=r"is not a file of captions \(.*it is no regular file, but a pipe"):
        text_files.read(tmp_path / name)
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "meta.json")
    with pytest.raises(UserError, match="is not overwritten"):
        owned.check_directory(tmp_path / "out", True)
    with pytest.raises(UserError, match=r"meta\.json cannot be read: .*it is no regular file"):
        store.read_meta(tmp_path / "out")


def test_json_that_is_nested_without_end_is_damaged_like_any_other(tmp_path):
    file = tmp_path / "x.json"
    for content in (b"[" * 200_000, b"\xff", b"{", b"", b'{"a": 1e'):
        file.write_bytes(content)
        with pytest.raises(ValueError):
            paths.read_json(file)
    file.write_text('{"ä": [1]}', encoding="utf-8")
    assert paths.read_json(file) == {"ä": [1]}
    file.write_text('{"ä": [1]}', encoding="utf-8-sig")
    assert paths.read_json(file) == {"ä": [1]}


@pytest.mark.parametrize("content", ["[" * 200_000, "{}", "[]", "3", '{"fingerprint": 1}', "\udcff", '{"text": 3}'])
def test_damaged_notes_beside_records_are_one_sentence(content, tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "prepared_dir", lambda *_: tmp_path)
    (tmp_path / "source.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"are damaged .*--force"):
        catalogue.source_of("rgbnt201", tmp_path)


@pytest.mark.parametrize("line", [b"\xff", b"[" * 200_000, b"{}", b"3", b'{"label": [], "protocol": 1}'])
def test_a_damaged_line_of_scores_is_named(line, tmp_path):
    (tmp_path / "scores.jsonl").write_bytes(line + b"\n")
    with pytest.raises(UserError, match=r"line 1 of .*scores\.jsonl is not a line of scores"):
        average.last_scores(tmp_path)
