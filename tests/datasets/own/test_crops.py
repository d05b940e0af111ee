"""Crops out of frames: boxes of MOT's text and COCO's JSON, against pixels cut by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from mmreid_jax.commands import crops as command
from mmreid_jax.datasets.own import crops, tree
from mmreid_jax.datasets.own.faults import Faults, FaultyData
from mmreid_jax.errors import UserError

HEIGHT, WIDTH = 90, 120


@pytest.fixture
def video(tmp_path):
    """Four frames of noise: (folder, {number: pixels})."""
    folder, pixels = tmp_path / "frames", {}
    folder.mkdir()
    for number in (1, 2, 3, 10):
        pixels[number] = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels[number]).save(folder / f"img_{number:04d}.png")
    return folder, pixels


def files(out):
    return {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*.png"))}


def run(tmp_path, folder, lines, *more):
    (tmp_path / "boxes.txt").write_text("\n".join(lines))
    arguments = ["--mot", str(tmp_path / "boxes.txt"), "--frames", str(folder), "--out", str(tmp_path / "out"), *more]
    command.main(arguments)
    return files(tmp_path / "out")


def test_boxes_of_a_tracker(tmp_path, video, capsys):
    folder, pixels = video
    lines = ["1,7,11,21,30,40,1,-1,-1,-1", "2,7,12,21,30,40", "1,8,101,51,60,60,0.9", "10,8,-4,1,20,50,1"]
    # Not to be considered, without an identity, and too low.
    lines += ["1,9,1,1,30,40,0", "1,-1,1,1,30,40,1", "3,7,1,1,30,31,1"]
    made = run(tmp_path, folder, lines, "--camera", "a")
    assert list(made) == ["7/ca_f000001.png", "7/ca_f000002.png", "8/ca_f000001.png", "8/ca_f000010.png"]
    cut = {name: np.asarray(Image.open(path)) for name, path in made.items()}
    np.testing.assert_array_equal(cut["7/ca_f000001.png"], pixels[1][20:60, 10:40])
    np.testing.assert_array_equal(cut["8/ca_f000001.png"], pixels[1][50:, 100:])
    np.testing.assert_array_equal(cut["8/ca_f000010.png"], pixels[10][:50, :15])
    printed = capsys.readouterr().out
    assert "4 crops of 2 identities" in printed
    assert "1 boxes were lower than 32 pixels" in printed


def test_the_pattern_that_is_printed_reads_them(tmp_path, video):
    lines = [f"{frame},{person},1,1,30,60" for frame in (1, 2, 3) for person in (4, 5)]
    run(tmp_path, video[0], lines, "--camera", "2", "--modality", "thermal", "--prefix", "v1-")
    faults = Faults()
    found = tree.read(tmp_path / "out", faults, crops.PATTERN)
    assert not faults
    assert {(each.identity, each.camera, each.modality) for each in found} == {
        ("v1-4", "2", "tir"),
        ("v1-5", "2", "tir"),
    }
    assert len(found) == 6


def test_one_in_so_many_frames_of_an_identity(tmp_path, video):
    lines = [f"{frame},{person},1,1,30,60" for frame in (10, 3, 2, 1) for person in (4, 5)]
    made = run(tmp_path, video[0], lines, "--every", "3")
    assert list(made) == [f"{person}/c1_f{frame:06d}.png" for person in (4, 5) for frame in (1, 10)]


def test_deep_frames_keep_their_depth(tmp_path):
    (tmp_path / "frames").mkdir()
    values = np.random.default_rng(0).integers(0, 2**16, (HEIGHT, WIDTH)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "frames" / "1.png")
    (path,) = run(tmp_path, tmp_path / "frames", ["1,1,1,1,40,50"]).values()
    np.testing.assert_array_equal(np.asarray(Image.open(path)), values[:50, :40])


@pytest.mark.parametrize("where", ["annotation", "attributes"])
@pytest.mark.parametrize("key", crops.IDENTITY_KEYS)
def test_boxes_of_coco(where, key, tmp_path, video):
    folder, pixels = video
    named = {key: 5} if where == "annotation" else {"attributes": {key: 5}}
    content = {
        "images": [{"id": 3, "file_name": "img_0002.png"}],
        "annotations": [{"id": 1, "image_id": 3, "bbox": [10, 20, 30.4, 40], **named}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    arguments = ["--coco", str(tmp_path / "boxes.json"), "--frames", str(folder), "--out", str(tmp_path / "out")]
    command.main(arguments)
    made = files(tmp_path / "out")
    assert list(made) == ["5/c1_fimg-0002.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(made["5/c1_fimg-0002.png"])), pixels[2][20:60, 10:40])


def test_all_faults_of_a_text_are_listed_at_once(tmp_path, video, capsys):
    lines = ["1,7,11,21,30,40", "1,7,eleven,21,30,40", "1,7,11", "5,7,11,21,30,40", "", "6,7,11,21,30,nan"]
    with pytest.raises(UserError, match="2 kinds of faults"):
        run(tmp_path, video[0], lines)
    assert capsys.readouterr().err.splitlines() == [
        "3 lines are not frame, id, left, top, width, height: line 2, line 3, line 6",
        f"1 lines name frames that are not in {video[0]}: 5 (line 4)",
    ]
    assert not (tmp_path / "out").exists()


NOT_NUMBERS = ["nan,1,1,1,30,40", "inf,1,1,1,30,40", "1,nan,1,1,30,40", "1,inf,1,1,30,40", "1,1,1e308,1,30,1e308"]


@pytest.mark.parametrize("line", [*NOT_NUMBERS, "1,7,1,1,30,40,nan", "1,7,1,1,30,40,1" + "0" * 200_000, "x" * 200_000])
def test_lines_that_hold_no_numbers(line, tmp_path, video, capsys):
    with pytest.raises(UserError, match="a kind of fault"):
        run(tmp_path, video[0], ["1,7,11,21,30,40", line])
    assert "are not frame, id, left, top, width, height: line 2" in capsys.readouterr().err


@pytest.mark.parametrize("box", [[float("nan")] * 4, [1e308] * 4, [float("-inf"), 0, float("inf"), 90], [10**400] * 4])
def test_boxes_of_coco_that_are_no_numbers(box, tmp_path, video):
    content = {"images": [{"id": 1, "file_name": "img_0001.png"}]}
    content["annotations"] = [{"image_id": 1, "bbox": box, "track_id": 1}]
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(FaultyData, match="no box of four numbers"):
        crops.read_coco(tmp_path / "boxes.json", video[0])


def test_all_faults_of_a_coco_file_are_listed_at_once(tmp_path, video):
    boxes = [{"image_id": 1, "bbox": [0, 0, 9, 9]}, {"image_id": 2, "bbox": [0, 0, 9, 9]}, {"image_id": 1}, 3]
    boxes.append({"image_id": 9, "bbox": [0, 0, 9, 9], "track_id": 1})
    content = {
        "images": [{"id": 1, "file_name": "img_0001.png"}, {"id": 9, "file_name": "x.png"}],
        "annotations": boxes,
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(FaultyData) as caught:
        crops.read_coco(tmp_path / "boxes.json", video[0])
    assert [line.partition(":")[0] for line in caught.value.lines] == [
        "1 annotations have no identity (identity, track_id, person_id, instance_id)",
        "3 annotations have no image or no box of four numbers",
        f"1 images are not in {video[0]}",
    ]


def test_crops_are_written_all_or_none(tmp_path, video):
    folder, _ = video
    (folder / "img_0003.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="a kind of fault"):
        run(tmp_path, folder, ["1,7,1,1,30,40", "3,7,1,1,30,40"])
    assert not list((tmp_path / "out").iterdir())
    run(tmp_path, folder, ["1,7,1,1,30,40"])
    with pytest.raises(UserError, match="a kind of fault"):
        run(tmp_path, folder, ["1,7,1,1,30,40", "2,7,1,1,30,40"])
    assert list(files(tmp_path / "out")) == ["7/c1_f000001.png"]
    run(tmp_path, folder, ["1,7,1,1,30,40"], "--camera", "2")
    assert len(files(tmp_path / "out")) == 2


def test_an_identity_is_once_in_a_frame(tmp_path, video):
    with pytest.raises(UserError, match="a kind of fault"):
        run(tmp_path, video[0], ["1,7,1,1,30,40", "1,7,9,1,30,40"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--camera", "a/b"], "--camera"),
        (["--modality", "xray"], "--modality"),
        (["--every", "0"], "at least 1"),
    ],
)
def test_flags_that_make_no_sense(more, message, tmp_path, video):
    with pytest.raises(UserError, match=message):
        run(tmp_path, video[0], ["1,7,1,1,30,40"], *more)


def test_files_that_cannot_be_read(tmp_path, video):
    folder, _ = video
    with pytest.raises(UserError, match="cannot be read"):
        crops.read_mot(tmp_path / "none.txt", folder)
    with pytest.raises(UserError, match="no COCO file"):
        crops.read_coco(folder / "img_0001.png", folder)
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match="no box with an identity"):
        crops.read_mot(tmp_path / "empty.txt", folder)
    with pytest.raises(UserError, match="no folder"):
        crops.read_mot(tmp_path / "empty.txt", tmp_path / "nowhere")
