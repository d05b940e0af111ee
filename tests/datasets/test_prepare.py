"""The prepare command: reuse, rebuild, kills, broken images, disk space, and what it prints."""

import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys

import pytest
from PIL import ImageFile

from mmreid_jax.commands.prepare import main
from mmreid_jax.datasets import catalogue
from mmreid_jax.datasets import prepare as command
from mmreid_jax.datasets.prepare import prepare
from mmreid_jax.errors import UserError
from mmreid_jax.paths import DATA_DIR_VARIABLE
from tests.datasets import trees
from tests.processes import run_python


def contents(folder):
    """Relative path -> bytes of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_run_reuses_the_records(tmp_path):
    trees.write("rgbnt201", tmp_path / "raw")
    first = prepare("rgbnt201", tmp_path / "raw", tmp_path / "data")
    before = contents(first.directory)
    second = prepare("rgbnt201", tmp_path / "raw" / "RGBNT201", tmp_path / "data")
    third = prepare("rgbnt201", None, tmp_path / "data")
    assert (first.fresh, second.fresh, third.fresh) == (True, False, False)
    assert contents(second.directory) == before


def test_the_same_files_elsewhere_are_the_same_data(tmp_path):
    trees.write("msvr310", tmp_path / "raw")
    prepare("msvr310", tmp_path / "raw", tmp_path / "data")
    (tmp_path / "raw").rename(tmp_path / "moved")
    assert not prepare("msvr310", tmp_path / "moved", tmp_path / "data").fresh


@pytest.mark.parametrize("change", ["file added", "file changed", "drawn with other parameters"])
def test_other_files_are_never_taken_for_the_prepared_ones(change, tmp_path):
    root = trees.write("rgbnt100", tmp_path / "raw")
    marker = root.parent / "drawn.json"
    marker.write_text(json.dumps({"seed": 1}))
    prepare("rgbnt100", tmp_path / "raw", tmp_path / "data")
    if change == "file added":
        trees.write_image(root / "query" / "0010_c0002_000.jpg", (768, 8))
    elif change == "file changed":
        with (root / "query" / "0003_c0001_000.jpg").open("ab") as file:
            file.write(b"more")
    else:
        marker.write_text(json.dumps({"seed": 2}))
    with pytest.raises(UserError, match=r"prepared in .* from other files .*--force"):
        prepare("rgbnt100", tmp_path / "raw", tmp_path / "data")
    assert prepare("rgbnt100", tmp_path / "raw", tmp_path / "data", force=True).fresh
    assert not prepare("rgbnt100", tmp_path / "raw", tmp_path / "data").fresh


def test_force_brings_the_new_labels(tmp_path):
    root = trees.write("rgbnt100", tmp_path / "raw")
    prepare("rgbnt100", tmp_path / "raw", tmp_path / "data")
    assert len(catalogue.load("rgbnt100", "query", tmp_path / "data")) == 1
    trees.write_image(root / "query" / "0010_c0002_000.jpg", (768, 8))
    prepare("rgbnt100", tmp_path / "raw", tmp_path / "data", force=True)
    records = catalogue.load("rgbnt100", "query", tmp_path / "data")
    assert records.identity.tolist() == [3, 10]
    assert [sorted(row) for row in records.encoded([0, 1])] == [["composite"], ["composite"]]


@pytest.mark.parametrize("extra", ["notes.txt", "sub/notes.txt", "link"])
def test_what_somebody_put_beside_the_records_stays(extra, tmp_path):
    root = trees.write("rgbnt100", tmp_path / "raw")
    directory = prepare("rgbnt100", tmp_path / "raw", tmp_path / "data").directory
    catalogue.load("rgbnt100", "query", tmp_path / "data")
    place = directory / extra
    place.parent.mkdir(exist_ok=True)
    if extra == "link":
        place.symlink_to(root)
    else:
        place.write_text("words")
    before = contents(tmp_path / "data")
    with pytest.raises(UserError, match=rf"it also holds {extra}, which mmreid_jax did not write"):
        prepare("rgbnt100", tmp_path / "raw", tmp_path / "data", force=True)
    assert contents(tmp_path / "data") == before
    place.unlink()
    prepare("rgbnt100", tmp_path / "raw", tmp_path / "data", force=True)


@pytest.mark.parametrize("what", ["a file", "a folder of somebody's"])
def test_what_is_no_prepared_data_set_stays(what, tmp_path):
    trees.write("rgbnt100", tmp_path / "raw")
    place = catalogue.prepared_dir("rgbnt100", tmp_path / "data")
    place.parent.mkdir(parents=True)
    (place if what == "a file" else place / "thesis.tex").parent.mkdir(exist_ok=True)
    (place if what == "a file" else place / "thesis.tex").write_text("words")
    before = contents(tmp_path / "data")
    with pytest.raises(UserError, match="is no prepared data set and is not overwritten"):
        prepare("rgbnt100", tmp_path / "raw", tmp_path / "data", force=True)
    (tmp_path / "data" / "rgbnt100" / ".lock").unlink()
    assert contents(tmp_path / "data") == before


def test_records_stay_where_the_new_ones_cannot_take_their_place(tmp_path, monkeypatch):
    trees.write("rgbnt100", tmp_path / "raw")
    directory = prepare("rgbnt100", tmp_path / "raw", tmp_path / "data").directory
    before = contents(directory)
    rename = pathlib.Path.rename

    def fail(path, target):
        if pathlib.Path(target) == directory and "incomplete" in str(path):
            raise OSError(5, "Input/output error")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "rename", fail)
        with pytest.raises(UserError, match="Input/output error"):
            prepare("rgbnt100", tmp_path / "raw", tmp_path / "data", force=True)
    assert contents(directory) == before
    assert sorted(path.name for path in directory.parent.iterdir()) == [".lock", directory.name]


def test_a_folder_whose_name_begins_like_ours_stays(tmp_path):
    trees.write("rgbnt100", tmp_path / "raw")
    own = tmp_path / "data" / "rgbnt100" / "incomplete.notes"
    own.mkdir(parents=True)
    prepare("rgbnt100", tmp_path / "raw", tmp_path / "data")
    assert own.is_dir()


KILLED = """
import os, signal, sys
from mmreid_jax.datasets import prepare as command

def stop_after_two(samples):
    yield from samples[:2]
    os.kill(os.getpid(), signal.SIGKILL)

command._bar = lambda progress, title: stop_after_two
command.prepare("rgbnt201", sys.argv[1], sys.argv[2], force=sys.argv[3] == "force")
"""


def test_a_kill_leaves_nothing_half_written_and_a_rerun_works(tmp_path):
    trees.write("rgbnt201", tmp_path / "raw")
    killed = run_python("-c", KILLED, str(tmp_path / "raw"), str(tmp_path / "data"), "")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    leftovers = [path.name for path in (tmp_path / "data" / "rgbnt201").iterdir() if path.name != ".lock"]
    assert [name.startswith("incomplete.") for name in leftovers] == [True]
    assert not catalogue.is_prepared("rgbnt201", tmp_path / "data")
    assert prepare("rgbnt201", tmp_path / "raw", tmp_path / "data").fresh
    assert sorted(path.name for path in (tmp_path / "data" / "rgbnt201").iterdir()) == [".lock", "1.0.0"]
    assert len(catalogue.load("rgbnt201", "train", tmp_path / "data")) == 4


def test_a_kill_while_rebuilding_keeps_the_earlier_records(tmp_path):
    trees.write("rgbnt201", tmp_path / "raw")
    directory = prepare("rgbnt201", tmp_path / "raw", tmp_path / "data").directory
    before = contents(directory)
    assert (
        run_python("-c", KILLED, str(tmp_path / "raw"), str(tmp_path / "data"), "force").returncode == -signal.SIGKILL
    )
    assert contents(directory) == before


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    root = trees.write("rgbnt201", tmp_path / "raw")

    def lose_a_file(progress, title):
        def bar(items, total=None):
            (root / "test" / "TI" / "000299_cam2_0_11.jpg").unlink(missing_ok=True)
            return items

        return bar

    monkeypatch.setattr(command, "_bar", lose_a_file)
    with pytest.raises(UserError, match=r"cannot write the records of rgbnt201.*000299_cam2_0_11"):
        prepare("rgbnt201", tmp_path / "raw", tmp_path / "data")
    assert [path.name for path in (tmp_path / "data" / "rgbnt201").iterdir()] == [".lock"]


FULL = """
import resource, signal, sys
from mmreid_jax.datasets.prepare import prepare

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
prepare("rgbnt201", sys.argv[1], sys.argv[2])
"""


def test_a_disk_that_fills_up_leaves_nothing(tmp_path):
    names = [f"{i:06d}_cam1_0_00.jpg" for i in range(1, 50)]
    trees.write("rgbnt201", tmp_path / "raw", {"train_171": names, "test": names[:3]})
    ended = run_python("-c", FULL, str(tmp_path / "raw"), str(tmp_path / "data"))
    assert "UserError: cannot write the records of rgbnt201" in ended.stderr
    assert "File too large" in ended.stderr
    assert [path.name for path in (tmp_path / "data" / "rgbnt201").iterdir()] == [".lock"]


@pytest.mark.parametrize("kind", ["truncated", "cut in its header", "empty", "not an image"])
def test_check_images_names_the_unreadable_ones(kind, tmp_path, monkeypatch):
    # Training may have switched PIL to tolerance; the check must see the damage all the same.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    root = trees.write("rgbnt201", tmp_path / "raw")
    path = root / "test" / "NI" / "000258_cam2_0_01.jpg"
    whole = path.read_bytes()
    damaged = {"truncated": whole[:-4], "cut in its header": whole[:90], "empty": b"", "not an image": b"hello" * 99}
    path.write_bytes(damaged[kind])
    with pytest.raises(UserError, match=r"1 of 21 images cannot be used: .*test/NI/000258_cam2_0_01\.jpg"):
        prepare("rgbnt201", tmp_path / "raw", tmp_path / "data", check_images=True)
    assert ImageFile.LOAD_TRUNCATED_IMAGES
    assert not catalogue.is_prepared("rgbnt201", tmp_path / "data")
    if kind != "truncated":
        # What does not begin like an image is seen without decoding.
        with pytest.raises(UserError, match="000258_cam2_0_01"):
            prepare("rgbnt201", tmp_path / "raw", tmp_path / "data")
        return
    assert prepare("rgbnt201", tmp_path / "raw", tmp_path / "data").fresh
    with pytest.raises(UserError, match="000258_cam2_0_01"):
        prepare("rgbnt201", tmp_path / "raw", tmp_path / "data", check_images=True)


def test_side_by_side_images_of_another_width_are_named(tmp_path):
    root = trees.write("rgbn300", tmp_path / "raw")
    trees.write_image(root / "query" / "0003_c0001_000.jpg", (768, 8))
    with pytest.raises(UserError, match=r"0003_c0001_000\.jpg \(768 pixels wide, not 512\)"):
        prepare("rgbn300", tmp_path / "raw", tmp_path / "data")


def test_a_disk_that_is_too_small_is_seen_before_writing(tmp_path, monkeypatch):
    trees.write("rgbnt201", tmp_path / "raw")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(UserError, match="free but the records need"):
        prepare("rgbnt201", tmp_path / "raw", tmp_path / "data")


def test_a_data_dir_that_cannot_be_written(tmp_path):
    trees.write("rgbnt201", tmp_path / "raw")
    (tmp_path / "data").write_text("a file in the way")
    with pytest.raises(UserError, match=r"cannot write to .*choose another --data_dir"):
        prepare("rgbnt201", tmp_path / "raw", tmp_path / "data")


def test_without_manual_dir_the_message_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"--manual_dir.*github.com/ziwang1121/IEEE.*mmreid_jax synthesize"):
        prepare("rgbnt201", None, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_misspelt_data_set_gets_a_hint(tmp_path):
    with pytest.raises(UserError, match="did you mean rgbnt201"):
        prepare("RGBNT-201", tmp_path, tmp_path / "data")


def break_one(root, kind):
    """Makes an image of a tree something else; returns its path."""
    path = root / "test" / "NI" / "000258_cam2_0_01.jpg"
    content = path.read_bytes()
    path.unlink()
    if kind == "a link out of the tree":
        (root.parent / "elsewhere.jpg").write_bytes(content)
        path.symlink_to(root.parent / "elsewhere.jpg")
    elif kind == "a link in the tree":
        (root / "test" / "other.bin").write_bytes(content)
        path.symlink_to("../other.bin")
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind in ("dangling", "circular"):
        path.symlink_to("nowhere" if kind == "dangling" else path.name)
    else:
        path.write_bytes({"empty": b"", "text": b"hello", "too large": claiming(60_000, 60_000)}[kind])
    return path


def claiming(height, width):
    """A bitmap of few bytes that claims to be of that size."""
    return b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


BROKEN = ["a link out of the tree", "a pipe", "a folder", "dangling", "circular", "empty", "text", "too large"]


@pytest.mark.parametrize("kind", BROKEN)
def test_no_file_is_written_that_is_no_image_of_the_tree(kind, tmp_path, caplog):
    root = trees.write("rgbnt201", tmp_path / "raw")
    path = break_one(root, kind)
    with pytest.raises(
        UserError, match=r"1 of 21 images cannot be used: test/NI/000258_cam2_0_01\.jpg \(.*--broken skip"
    ):
        prepare("rgbnt201", tmp_path / "raw", tmp_path / "data")
    assert not catalogue.is_prepared("rgbnt201", tmp_path / "data")
    assert prepare("rgbnt201", tmp_path / "raw", tmp_path / "data", broken="skip").fresh
    assert "samples of rgbnt201 are left out: test/NI/000258_cam2_0_01.jpg" in caplog.text
    gallery = catalogue.load("rgbnt201", "gallery", tmp_path / "data")
    assert path.name not in gallery.file.tolist()
    assert len(gallery) == 2
    source = catalogue.source_of("rgbnt201", tmp_path / "data")
    assert list(source["left_out"]) == ["test/NI/000258_cam2_0_01.jpg"]
    # The same again is the same; who does not skip is told, also after the file was mended.
    assert not prepare("rgbnt201", tmp_path / "raw", tmp_path / "data", broken="skip").fresh
    with pytest.raises(UserError, match=r"1 of 21 images cannot be used"):
        prepare("rgbnt201", tmp_path / "raw", tmp_path / "data")
    path.rmdir() if kind == "a folder" else path.unlink()
    trees.write_image(path, (8, 16))
    with pytest.raises(UserError, match=r"from other files .*--force"):
        prepare("rgbnt201", tmp_path / "raw", tmp_path / "data")
    assert prepare("rgbnt201", tmp_path / "raw", tmp_path / "data", force=True).fresh
    assert "left_out" not in catalogue.source_of("rgbnt201", tmp_path / "data")
    assert path.name in catalogue.load("rgbnt201", "gallery", tmp_path / "data").file.tolist()


def test_links_are_followed_in_the_tree_and_on_demand(tmp_path):
    break_one(trees.write("rgbnt201", tmp_path / "raw"), "a link in the tree")
    assert prepare("rgbnt201", tmp_path / "raw", tmp_path / "data").fresh
    break_one(trees.write("rgbnt201", tmp_path / "other"), "a link out of the tree")
    assert prepare("rgbnt201", tmp_path / "other", tmp_path / "data2", follow_links=True).fresh


def test_a_split_of_which_nothing_is_left(tmp_path):
    root = trees.write("rgbnt201", tmp_path / "raw")
    for path in (root / "train_171" / "TI").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no image of train can be used"):
        prepare("rgbnt201", tmp_path / "raw", tmp_path / "data", broken="skip")


def test_images_that_are_no_part_of_the_data_set_are_named(tmp_path, caplog):
    root = trees.write("rgbnt201", tmp_path / "raw")
    for name in ("000258_cam2_0_09.PNG", "._000258_cam2_0_01.jpg", "photo.heic", "Thumbs.db"):
        (root / "test" / "NI" / name).write_bytes(b"x")
    prepare("rgbnt201", tmp_path / "raw", tmp_path / "data")
    assert "3 images are no part of rgbnt201" in caplog.text
    assert "000258_cam2_0_09.PNG (rgbnt201 holds JPEG files, not .png)" in caplog.text
    assert "Thumbs" not in caplog.text


@pytest.mark.parametrize("source", ["a pipe", "a circle", "dangling", "a file", "too long"])
def test_a_source_that_is_no_folder(source, tmp_path):
    place = tmp_path / ("x" * 300 if source == "too long" else "raw")
    if source == "a pipe":
        os.mkfifo(place)
    elif source == "a file":
        place.write_text("x")
    elif source != "too long":
        place.symlink_to(place.name if source == "a circle" else "nowhere")
    with pytest.raises(UserError, match=r"not a folder|cannot be read"):
        prepare("rgbnt201", place, tmp_path / "data")


@pytest.mark.slow(short=True)
def test_two_processes_prepare_once(tmp_path):
    trees.write("rgbnt201", tmp_path / "raw")
    arguments = ["--dataset", "rgbnt201", "--manual_dir", str(tmp_path / "raw"), "--data_dir", str(tmp_path / "data")]
    started = [
        subprocess.Popen([sys.executable, "-m", "mmreid_jax", "prepare", *arguments], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    first_lines = sorted(process.communicate()[0].split(" in ")[0] for process in started)
    assert first_lines == ["rgbnt201: already prepared", "rgbnt201: prepared"]


def test_data_dir_comes_from_the_environment(tmp_path, monkeypatch):
    trees.write("rgbnt100", tmp_path / "raw")
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "elsewhere"))
    main(["--dataset", "rgbnt100", "--manual_dir", str(tmp_path / "raw")])
    assert os.listdir(tmp_path / "elsewhere") == ["rgbnt100"]
