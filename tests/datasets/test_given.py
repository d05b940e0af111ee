"""Images in hand as a table: what is inside, and what cannot be a table."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from mmreid_jax.data.images import decode_sample
from mmreid_jax.datasets import given
from mmreid_jax.errors import UserError

MODALITIES = ("rgb", "nir")


@pytest.fixture
def stacks():
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (3, 20, 10, 3), np.uint8) for name in MODALITIES}


@pytest.fixture
def files(stacks, tmp_path):
    """Folders of the images, one for each modality."""
    for name, stack in stacks.items():
        (tmp_path / f"my_{name}").mkdir()
        for i, image in enumerate(stack):
            Image.fromarray(image).save(tmp_path / f"my_{name}" / f"{i}.png")
    return {name: tmp_path / f"my_{name}" for name in stacks}


def pixels(records, row):
    return decode_sample(records, row, records.encoded([row])[0])


@pytest.mark.parametrize("form", ["arrays", "folders", "both"])
def test_a_table_holds_the_images(form, stacks, files):
    images = {"arrays": stacks, "folders": files, "both": {**stacks, "nir": files["nir"]}}[form]
    records, absent = given.table(images, MODALITIES)
    assert absent == ()
    assert len(records) == 3
    assert records.modalities == MODALITIES
    assert set(records.identity) == {-1}
    again = pickle.loads(pickle.dumps(records))
    for row in range(3):
        for name, image in pixels(again, row).items():
            np.testing.assert_array_equal(image, stacks[name][row])


def test_images_may_differ_in_size():
    sizes = [(20, 10), (30, 15)]
    records, _ = given.table([np.zeros((*size, 3), np.uint8) for size in sizes], ("rgb",))
    assert [pixels(records, row)["rgb"].shape[:2] for row in (0, 1)] == sizes


def test_an_absent_modality_points_at_an_image_that_is_there(stacks):
    records, absent = given.table({"nir": stacks["nir"]}, MODALITIES)
    assert absent == ("rgb",)
    assert records.modalities == MODALITIES
    np.testing.assert_array_equal(pixels(records, 1)["rgb"], stacks["nir"][1])
    completed, absent = given.table(records.of_modality("nir"), MODALITIES)
    assert absent == ("rgb",)
    assert completed.modalities == MODALITIES


def test_a_folder_names_the_files(files):
    records, _ = given.table({"nir": files["nir"]}, MODALITIES)
    assert [name.rpartition("/")[2] for name in records.file] == ["0.png", "1.png", "2.png"]


IMAGE = np.zeros((20, 10, 3), np.uint8)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "no images of rgb"),
        ({}, "no images"),
        ({"tir": [IMAGE]}, "does not know the modality 'tir'; it sees rgb, nir"),
        ({"rgb": [IMAGE], "nir": [IMAGE, IMAGE]}, "1 of rgb, 2 of nir"),
        (["nowhere.png"], "no file nowhere.png, number 0 of the rgb images"),
        ({"nir": "nowhere"}, "no folder nowhere"),
        ("nowhere", "no folder nowhere"),
        ({"nir": 3}, "nir images are a int"),
        ([IMAGE, IMAGE / 255], r"number 1 of the rgb images is float64 \[20, 10, 3\]"),
        (IMAGE, r"number 0 of the rgb images is uint8 \[10, 3\]"),
        (np.zeros((2, 20, 10, 4), np.uint8), r"uint8 \[20, 10, 4\]"),
    ],
)
def test_what_is_no_image_is_named(images, message):
    with pytest.raises(UserError, match=message):
        given.table(images, MODALITIES)


def test_folders_of_other_names_are_not_mixed_up(files):
    (files["nir"] / "1.png").rename(files["nir"] / "7.png")
    with pytest.raises(UserError, match=r"where one has 1.png, the other has 2.png"):
        given.table(files, MODALITIES)


def test_texts(stacks):
    records, _ = given.table(stacks, MODALITIES)
    texts = given.with_texts(records, {"rgb": ["a", "b", "c"]}, MODALITIES).captions
    assert {name: column.tolist() for name, column in texts.items()} == {"rgb": ["a", "b", "c"], "nir": [""] * 3}
    one = given.with_texts(records, {"rgb": "a man"}, MODALITIES).captions
    assert one["rgb"].tolist() == ["a man"] * 3
