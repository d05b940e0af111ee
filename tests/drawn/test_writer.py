"""Writing drawn data sets: the same bytes whatever the workers, all or nothing, and the command."""

import dataclasses
import hashlib
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from mmreid_jax import drawn
from mmreid_jax.datasets import catalogue, drawing, prepare
from mmreid_jax.drawn import writer
from mmreid_jax.errors import UserError
from tests.drawn.sets import SMALL

SIZES = {  # (width, height) of the files
    "rgbnt201": (128, 256),
    "rgbnt100": (768, 128),
    "rgbn300": (512, 128),
    "msvr310": (256, 128),
    "market1501_mm": (128, 256),
    "sysu_mm01": (128, 256),
    "regdb": (64, 128),
    "llcm": (128, 256),
}


SINGLE = ("sysu_mm01", "regdb", "llcm")
CAPTIONED = {"rgbnt201": "text", "rgbnt100": "rgbir/text", "msvr310": "text"} | dict.fromkeys(SINGLE, "Text")
"""Data set -> folder of its captions."""


def digests(folder):
    """{path: digest} of all files below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(pathlib.Path(folder).rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", SIZES)
def test_every_planned_file_is_written_and_no_other(tmp_path, name):
    summary = drawing.draw(name, tmp_path, **SMALL)
    layout = drawing.of(name)
    assert summary.root == tmp_path / layout.root
    samples = drawing.plan(name, **SMALL)
    planned = {path for sample in samples for path in layout.paths(sample)}
    lists = layout.lists(samples) if layout.lists else {}
    text = {path for path in digests(summary.root) if path.startswith(f"{CAPTIONED.get(name)}/")}
    assert bool(text) == (name in CAPTIONED)
    assert set(digests(summary.root)) - text == planned | {writer.MARKER, *lists}
    assert all((summary.root / path).read_text() == text for path, text in lists.items())
    assert summary.files == len(planned)
    for split, count in summary.counts.items():
        assert count.samples == sum(split in sample.splits for sample in samples)
    for path in planned:
        with Image.open(summary.root / path) as image:
            kind = "BMP" if path.endswith(".bmp") else "JPEG"
            assert (image.format, image.size, image.mode) == (kind, SIZES[name], "RGB")
    assert os.listdir(tmp_path) == [layout.root]


def test_files_hold_what_is_drawn(tmp_path):
    root = drawing.draw("rgbnt100", tmp_path, **SMALL).root
    layout = drawing.of("rgbnt100")
    sample = next(s for s in drawing.plan("rgbnt100", **SMALL) if "query" in s.splits)
    images = drawn.draw_sample(layout, sample)
    gallery, query = (root / path for path in layout.paths(sample))
    assert gallery.read_bytes() == query.read_bytes()
    written = np.asarray(Image.open(gallery), float)
    for name, part in zip(("rgb", "nir", "tir"), np.split(written, 3, axis=1), strict=True):
        assert np.abs(part - images[name]).mean() < 6


@pytest.mark.parametrize("name", SINGLE)
def test_visible_infrared_sets_go_all_the_way_to_records(tmp_path, name):
    dataset = "regdb/trial_2" if name == "regdb" else name
    numbers = {"identities": 3, "images_per_identity": 6, "image_size": (32, 16)}
    drawing.draw(dataset, tmp_path / "raw", **numbers)
    prepare.prepare(dataset, tmp_path / "raw", tmp_path / "data")
    layout = drawing.of(name)
    samples = drawing.plan(dataset, identities=3, images_per_identity=6)
    for split in ("train", "query", "gallery"):
        table = catalogue.load(dataset, split, tmp_path / "data")
        planned = {list(layout.paths(s))[-1]: s for s in samples if split in s.splits}
        assert sorted(table.file) == sorted(planned)
        for row, file in enumerate(table.file):
            sample = planned[file]
            assert (table.identity[row], table.camera[row]) == (sample.identity, sample.seen_by)
            modality = table.modality[row] if split == "train" else table.modalities[0]
            assert modality == sample.modality
        pixels = [np.asarray(Image.open(io.BytesIO(row["image"])), int) for row in table.encoded(range(len(table)))]
        colour = np.array([np.abs(image - image.mean(axis=2, keepdims=True)).mean() for image in pixels])
        visible = np.array([planned[file].modality == "rgb" for file in table.file])
        assert np.all(colour[~visible] < 1)
        assert np.all(colour[visible] > 1)


@pytest.mark.parametrize("name", SINGLE)
def test_captions_come_in_the_released_files(tmp_path, name):
    root = drawing.draw(name, tmp_path, **SMALL, image_size=(32, 16)).root
    common = {f"{kind}_Blip_{side}.json" for kind in ("caption_dict",) for side in ("RGB", "IR")}
    arrays = {f"train_{kind}_Blip_{side}.npy" for kind in ("text", "llm_text", "text_label") for side in ("RGB", "IR")}
    dictionaries = {f"caption_llm_dict_Blip_{side}.json" for side in ("RGB", "IR")}
    own = arrays if name == "sysu_mm01" else dictionaries
    found = {path.name for path in (root / "Text").rglob("*") if path.is_file()}
    assert found == common | own | {"id_caption_map_Blip_RGB.json", "drawn.json"}
    samples = drawing.plan(name, **SMALL)
    for side, visible in (("RGB", True), ("IR", False)):
        said = json.loads((root / "Text" / f"Blip_{side}" / f"caption_dict_Blip_{side}.json").read_text())
        assert len(said) == sum((sample.modality == "rgb") == visible for sample in samples)
        assert all(key.startswith("datasets/") for key in said)
    people = json.loads((root / "Text" / "Blip_RGB" / "id_caption_map_Blip_RGB.json").read_text())
    assert sorted(map(int, people)) == sorted({sample.identity for sample in samples if sample.modality == "rgb"})


@pytest.mark.parametrize("name", ["rgbnt201", "rgbnt100", "msvr310"])
def test_captions_of_aligned_images_come_in_the_released_files(tmp_path, name):
    folder = drawing.draw(name, tmp_path, **SMALL).root / CAPTIONED[name]
    samples = drawing.plan(name, **SMALL)
    files = {f"{part}_{kind}.json" for part in ("train", "test") for kind in ("RGB", "NI", "TI")}
    assert set(os.listdir(folder)) == files | {writer.MARKER}
    for part in ("train", "test"):
        names = sorted({sample.file for sample in samples if sample.trained_on == (part == "train")})
        for kind in ("RGB", "NI", "TI"):
            entries = json.loads((folder / f"{part}_{kind}.json").read_text())
            assert sorted(entry["item"] for entry in entries) == names
            assert all(entry["description"] for entry in entries)


@pytest.mark.parametrize("spoilt", ["absent", "old", "half"])
def test_a_set_from_before_there_were_captions_gets_them(tmp_path, spoilt):
    numbers = SMALL | {"image_size": (32, 16)}
    root = drawing.draw("llcm", tmp_path, **numbers).root
    before = digests(root)
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*.jpg")}
    if spoilt == "absent":
        shutil.rmtree(root / "Text")
    else:
        (root / "Text" / writer.MARKER).write_text('{"text_version": 0}')
    if spoilt == "half":
        (root / "Text" / "Blip_IR" / "caption_dict_Blip_IR.json").unlink()
    assert drawing.draw("llcm", tmp_path, **numbers).reused
    assert digests(root) == before
    assert times == {path: path.stat().st_mtime_ns for path in root.rglob("*.jpg")}


def test_somebodys_own_captions_stay(tmp_path):
    numbers = SMALL | {"image_size": (32, 16)}
    root = drawing.draw("llcm", tmp_path, **numbers).root
    (root / "Text" / writer.MARKER).unlink()
    own = root / "Text" / "Blip_IR" / "caption_dict_Blip_IR.json"
    own.write_text("{}")
    before = digests(root)
    assert drawing.draw("llcm", tmp_path, **numbers).reused
    assert digests(root) == before
    assert own.read_text() == "{}"


def test_captions_that_a_kill_left_half_way_are_written_again(tmp_path, monkeypatch):
    numbers = SMALL | {"image_size": (32, 16)}
    root = drawing.draw("llcm", tmp_path, **numbers).root
    before = digests(root)
    shutil.rmtree(root / "Text")
    with monkeypatch.context() as patch:
        patch.setattr(writer.captions, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            drawing.draw("llcm", tmp_path, **numbers)
    drawing.draw("llcm", tmp_path, **numbers)
    assert digests(root) == before


def test_a_set_on_a_disk_that_cannot_be_written_to_is_used_as_it_is(tmp_path, monkeypatch):
    numbers = SMALL | {"image_size": (32, 16)}
    root = drawing.draw("llcm", tmp_path, **numbers).root
    shutil.rmtree(root / "Text")

    def refuse(*arguments):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(writer, "_write_text", refuse)
    assert drawing.draw("llcm", tmp_path, **numbers).reused


def test_a_trial_of_regdb_is_drawn_already(tmp_path):
    numbers = {"identities": 2, "images_per_identity": 4, "image_size": (32, 16)}
    first = drawing.draw("regdb", tmp_path, **numbers)
    other = drawing.draw("regdb/trial_7", tmp_path, **numbers)
    assert (first.reused, other.reused) == (False, True)
    assert first.root == other.root
    sheet = drawing.contact_sheet("regdb/trial_7", tmp_path, tmp_path / "sheet.png")
    assert sheet.is_file()


def test_nothing_in_regdb_is_moved_for_the_test(tmp_path):
    """Who is trained on in one trial is tested in another."""
    sample = drawing.plan("regdb", identities=2, images_per_identity=2)[0]
    near, far = (drawn.draw_sample(drawing.of("regdb"), sample, drawn.Rendering(shift=shift)) for shift in (0.0, 1.0))
    np.testing.assert_array_equal(near["rgb"], far["rgb"])


def test_a_sample_of_one_modality_is_what_all_sensors_would_have_seen():
    sample = next(s for s in drawing.plan("sysu_mm01") if s.modality == "nir")
    (alone,) = drawn.draw_sample(drawing.of("sysu_mm01"), sample).items()
    every = drawn.draw_sample(drawing.of("sysu_mm01"), dataclasses.replace(sample, modality=None))
    assert tuple(every) == ("rgb", "nir", "tir")
    np.testing.assert_array_equal(alone[1], every[alone[0]])


def test_sysu_camera_3_looks_at_the_place_of_camera_2():
    samples = drawing.plan("sysu_mm01")
    one, other = (next(s for s in samples if s.camera == camera) for camera in (2, 3))
    assert (one.place or one.camera) == (other.place or other.camera) == 2
    assert other.place != other.camera


def test_market_is_dark_and_its_near_infrared_is_grey():
    sample = drawing.plan("market1501_mm", **SMALL)[0]
    images = drawn.draw_sample(drawing.of("market1501_mm"), sample)
    assert images["rgb"].max() <= 0.4 * 255 + 1
    grey = images["rgb"] @ np.array([0.299, 0.587, 0.114]) / 0.4
    assert np.abs(grey - images["nir"][..., 0]).max() < 3


@pytest.mark.slow(short=True)
@pytest.mark.parametrize("name", ["rgbnt201", "msvr310"])
def test_the_number_of_processes_changes_nothing(tmp_path, monkeypatch, name):
    monkeypatch.setattr(writer, "_CHUNK", 5)
    numbers = SMALL | {"image_size": (64, 64), "seed": 4}
    one = drawing.draw(name, tmp_path / "one", **numbers)
    two = drawing.draw(name, tmp_path / "two", **numbers, jobs=2)
    assert digests(one.root) == digests(two.root)
    other = drawing.draw(name, tmp_path / "three", **numbers | {"seed": 5})
    assert digests(other.root).keys() == digests(one.root).keys()
    assert digests(other.root) != digests(one.root)


def test_shift_moves_the_test_split_alone(tmp_path):
    numbers = SMALL | {"image_size": (32, 16)}
    near = digests(drawing.draw("rgbnt201", tmp_path / "near", shift=0.0, **numbers).root)
    far = digests(drawing.draw("rgbnt201", tmp_path / "far", shift=1.0, **numbers).root)
    for path in near:
        if path.startswith("train"):
            assert near[path] == far[path]
        elif path.startswith("test"):
            assert near[path] != far[path]


def test_the_same_set_is_used_again(tmp_path):
    numbers = SMALL | {"image_size": (32, 16)}
    first = drawing.draw("rgbnt201", tmp_path, **numbers)
    times = {path: path.stat().st_mtime_ns for path in first.root.rglob("*")}
    again = drawing.draw("rgbnt201", tmp_path, **numbers, jobs=2)
    assert (first.reused, again.reused) == (False, True)
    assert again.counts == first.counts
    assert times == {path: path.stat().st_mtime_ns for path in first.root.rglob("*")}


@pytest.mark.parametrize("change", [{"seed": 1}, {"shift": 0.1}, {"identities": 3}, {"image_size": (32, 32)}])
def test_another_set_is_not_overwritten(tmp_path, change):
    numbers = SMALL | {"image_size": (32, 16)}
    before = digests(drawing.draw("rgbnt201", tmp_path, **numbers).root)
    with pytest.raises(UserError, match=f"other parameters \\({next(iter(change))}"):
        drawing.draw("rgbnt201", tmp_path, **numbers | change)
    assert digests(tmp_path / "RGBNT201") == before


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "RGBNT201").mkdir()
    (tmp_path / "RGBNT201" / "photograph.jpg").write_bytes(b"irreplaceable")
    with pytest.raises(UserError, match="not drawn data"):
        drawing.draw("rgbnt201", tmp_path, **SMALL)
    assert digests(tmp_path) == {"RGBNT201/photograph.jpg": hashlib.sha256(b"irreplaceable").hexdigest()}


def test_an_empty_folder_is_filled_and_neighbours_stay(tmp_path):
    (tmp_path / "RGBNT201").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    drawing.draw("rgbnt201", tmp_path, **SMALL, image_size=(32, 16))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "RGBNT201" / writer.MARKER).is_file()


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing(tmp_path, monkeypatch, failure):
    true, calls = writer._encode, []

    def encode(image, path):
        calls.append(path)
        if len(calls) > 7:
            raise failure
        true(image, path)

    monkeypatch.setattr(writer, "_encode", encode)
    expected = UserError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        drawing.draw("rgbnt201", tmp_path, **SMALL, image_size=(32, 16))
    assert os.listdir(tmp_path) == []


def test_a_killed_run_leaves_no_data_set_and_the_next_one_cleans_up(tmp_path):
    command = [
        sys.executable,
        "-m",
        "mmreid_jax",
        "synthesize",
        "--dataset",
        "rgbnt201",
        "--out",
        str(tmp_path),
        "--full",
    ]
    process = subprocess.Popen(command, cwd=pathlib.Path(__file__).parents[2], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.rglob("*.jpg")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (leftover,) = os.listdir(tmp_path)
    assert leftover.startswith(".RGBNT201.drawing-")
    drawing.draw("rgbnt201", tmp_path, **SMALL, image_size=(32, 16))
    assert os.listdir(tmp_path) == ["RGBNT201"]


def test_somebody_else_finishing_first_is_no_failure(tmp_path, monkeypatch):
    numbers = SMALL | {"image_size": (32, 16)}
    true, raced = pathlib.Path.rename, []

    def rename(self, target):
        if not raced:
            raced.append(target)
            monkeypatch.setattr(os, "getpid", lambda: 4_000_000)
            drawing.draw("rgbnt201", tmp_path, **numbers)
            monkeypatch.undo()
        return true(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", rename)
    summary = drawing.draw("rgbnt201", tmp_path, **numbers)
    assert raced
    assert summary.reused
    assert os.listdir(tmp_path) == ["RGBNT201"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shift": 1.5}, "shift is 1.5"),
        ({"jobs": -1}, "jobs is -1"),
        ({"seed": drawn.RESERVED_SEEDS.start}, "kept for the people that trunks are trained on"),
        ({"image_size": (8, 8)}, "16 to 512"),
        ({"dataset": "rgbnt100", "image_size": (64, 128)}, "side by side"),
    ],
)
def test_impossible_parameters_are_refused(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        drawing.draw(**{"dataset": "rgbnt201", "out": tmp_path, **SMALL, **arguments})
    assert os.listdir(tmp_path) == []


def test_an_unusable_place_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        drawing.draw("rgbnt201", tmp_path / "file" / "below", **SMALL)
