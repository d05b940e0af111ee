"""Folders of images: what folders and names say, and what is wrong with a tree."""

import os

import pytest

from mmreid_jax.datasets.own import naming, tree
from mmreid_jax.datasets.own.faults import Faults
from mmreid_jax.errors import UserError
from tests.datasets.own import made


def read(root, names, pattern=""):
    faults = Faults()
    found = tree.read(made.write(root, names), faults, pattern)
    return {each.file: (each.identity, each.camera, each.scene, each.modality, each.split) for each in found}, faults


@pytest.mark.parametrize(
    ("name", "pattern", "said"),
    [
        ("7/a.jpg", "", ("7", "", "", "rgb", "")),
        ("anna/day 2/a.png", "", ("anna", "", "", "rgb", "")),
        ("0002_c1s3_000451_03.jpg", "", ("0002", "1", "3", "rgb", "")),
        ("thermal/7/a.png", "", ("7", "", "", "tir", "")),
        ("7/IR/a.png", "", ("7", "", "", "nir", "")),
        ("train/rgb/7/a.jpg", "", ("7", "", "", "rgb", "train")),
        ("nir/test/7/a.jpg", "", ("7", "", "", "nir", "test")),
        ("bounding_box_test/0002_c1s1_000451_03.jpg", "", ("0002", "1", "1", "rgb", "gallery")),
        ("7/c2_0001.jpg", "c{camera}_{index}", ("7", "2", "", "rgb", "")),
        ("7/c2_0001.jpg", "{identity}/c{camera}_{index}", ("7", "2", "", "rgb", "")),
        ("query_7_nir.jpg", "{split}_{identity}_{modality}", ("7", "", "", "nir", "query")),
    ],
)
def test_what_a_place_in_the_tree_says(name, pattern, said, tmp_path):
    found, faults = read(tmp_path, [name], pattern)
    assert (found, faults.lines) == ({name: said}, [])


def test_images_of_one_sample_have_one_key(tmp_path):
    names = ["rgb/7/a.jpg", "rgb/7/b.jpg", "tir/7/a.png", "tir/8/a.png"]
    keys = {each.file: each.key for each in tree.read(made.write(tmp_path, names), Faults())}
    assert keys["rgb/7/a.jpg"] == keys["tir/7/a.png"]
    assert len(set(keys.values())) == 3


def test_all_that_is_wrong_with_a_tree_is_said_at_once(tmp_path):
    """Names of another form, an image outside of a folder, a format that is not read, a link to nothing."""
    names = [f"7/x{i}.jpg" for i in range(4)]
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "photo.heic").write_bytes(b"x")
    (tmp_path / "7" / "._c1_1.jpg").write_bytes(b"x")
    (tmp_path / "7" / "gone.png").symlink_to(tmp_path / "nowhere")
    _, faults = read(tmp_path, [*names, "7/c1_2.jpg", "c1_3.jpg"], "c{camera}_{index}")
    assert faults.lines == [
        "2 files cannot be used: 7/gone.png (a link to nothing), 7/photo.heic (images with the suffix .heic are not "
        "read; save it as PNG or TIFF)",
        "4 names do not end in the form c{camera}_{index} (--pattern names another): 7/x0.jpg, 7/x1.jpg, 7/x2.jpg ...",
        "1 images lie outside of the folders of the identities: c1_3.jpg",
    ]


@pytest.mark.parametrize(
    ("names", "pattern", "line"),
    [
        (["rgb/1/a.jpg", "thermal2/1/a.jpg"], "", "names beside the folders of modalities (rgb) are none themselves"),
        (["train/1/a.jpg", "val/1/a.jpg"], "", "names beside the folders of splits (train) are none themselves: val"),
        (["train/1/a.jpg", "b.jpg"], "", "are none themselves: images without a folder"),
        (["1_xray.jpg"], "{identity}_{modality}", "have an unknown modality"),
        (["1_val.jpg"], "{identity}_{split}", "have an unknown split"),
        (["12.jpg"], "", f"do not end in the form {naming.MARKET}"),
    ],
)
def test_nothing_is_taken_for_what_it_is_not(names, pattern, line, tmp_path):
    _, faults = read(tmp_path, names, pattern)
    assert any(line in each for each in faults.lines), faults.lines


def test_there_must_be_images(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        tree.read(tmp_path / "nothing", Faults())
    with pytest.raises(UserError, match="holds no image"):
        tree.read(tmp_path, Faults())


def test_names_that_are_no_text_are_listed(tmp_path):
    _, faults = read(tmp_path, ["7/a.jpg", os.fsdecode(b"7/\xff.jpg"), os.fsdecode(b"\xfe/a.jpg")])
    assert faults.lines == [r"2 names are not UTF-8 (rename the files or their folders): 7/\udcff.jpg, \udcfe/a.jpg"]
