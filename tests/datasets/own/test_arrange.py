"""From images with labels to samples: pairs, numbers, splits, and what is wrong."""

from __future__ import annotations

import dataclasses
import pathlib
import random

import numpy as np
import pytest

from mmreid_jax.datasets.own import arrange
from mmreid_jax.datasets.own.arrange import FoundImage, SplitDraw
from mmreid_jax.datasets.own.faults import Faults
from mmreid_jax.errors import UserError

UNKNOWN = "cameras are not known, so nothing is excluded by camera when scores are made"


def image(identity, camera="", shot=0, modality="rgb", split="", **labels):
    file = f"{modality}/{identity}/{camera}_{shot}.jpg"
    key = labels.pop("key", f"{identity}/{camera}_{shot}")
    return FoundImage(pathlib.Path("root") / file, file, str(identity), str(camera), "", modality, split, key, **labels)


def arranged(found, aligned=None, **drawing):
    faults = Faults()
    made = arrange.arrange(found, faults, aligned=aligned, drawing=SplitDraw(**drawing))
    return made, faults.lines


def some(count, cameras, shots, seed, modalities=("rgb",)):
    """Of every identity a random number of images of random cameras."""
    generator = random.Random(seed)
    found = [
        image(person, generator.choice(cameras), shot, generator.choice(modalities))
        for person in range(count)
        for shot in range(generator.randint(1, shots))
    ]
    generator.shuffle(found)
    return found


def people(samples):
    return {sample.labels.identity for sample in samples}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("cameras", [("",), ("1", "2"), ("a", "b", "c", "d")])
def test_drawn_splits_share_nobody_and_every_query_has_a_match(cameras, seed):
    found = some(12, cameras, 6, seed)
    made, lines = arranged(found, seed=seed)
    assert not lines
    samples = made.samples
    assert not people(samples["train"]) & (people(samples["query"]) | people(samples["gallery"]))
    files = [sample.file for split in samples.values() for sample in split]
    assert sorted(files) == sorted(each.file for each in found)
    assert len(people(samples["query"]) | people(samples["gallery"])) == 6
    for query in samples["query"]:
        matches = [other for other in samples["gallery"] if other.labels.identity == query.labels.identity]
        assert any(not made.cameras or other.labels.camera != query.labels.camera for other in matches)
    alone = len(people(samples["gallery"]) - people(samples["query"]))
    remark = f"{alone} of 6 test identities are in the gallery alone: no query shows them"
    assert made.notes == (*(() if cameras[0] else (UNKNOWN,)), *((remark,) if alone else ()))


def test_a_draw_is_a_function_of_the_seed_and_of_no_order():
    found = some(20, ("1", "2"), 5, 0)
    first, _ = arranged(found, seed=3)
    assert arranged(found[::-1], seed=3)[0].samples == first.samples
    assert arranged(found, seed=4)[0].samples != first.samples
    assert first.split == "drawn by identity, 0.5 of them for the test, seed 3"


@pytest.mark.parametrize(("share", "tested"), [(0.01, 1), (0.25, 5), (0.5, 10), (0.99, 18)])
def test_the_share_of_the_test_leaves_two_to_train_on(share, tested):
    found = [image(person, "", shot) for person in range(20) for shot in range(3)]
    made, lines = arranged(found, test_share=share)
    assert not lines
    assert len(people(made.samples["gallery"])) == tested


def test_queries_of_every_camera_that_can_spare_one():
    found = [
        image(7, camera, shot, split="test")
        for camera, shots in (("1", 3), ("2", 1), ("3", 2))
        for shot in range(shots)
    ]
    found += [image(8, "1", shot, split="test") for shot in range(4)]
    found += [image(9, camera, split="test") for camera in ("1", "2", "3")]
    found += [image(person, split="train", camera="1") for person in (1, 2)]
    made, lines = arranged(found)
    assert not lines
    seen = {(s.labels.identity, made.cameras[s.labels.camera]) for s in made.samples["query"]}
    assert {key for key in seen if key[0] != 9} == {(7, "1"), (7, "3")}
    assert len([key for key in seen if key[0] == 9]) == 1
    assert len(made.samples["query"]) == 3
    assert made.split == "given"
    assert made.notes == ("1 of 3 test identities are in the gallery alone: no query shows them",)


def test_given_splits_stay_and_what_no_query_can_find_is_said():
    found = [image(1, "1", split="train"), image(2, "1", split="train")]
    found += [image(3, "1", split="query"), image(3, "1", 1, split="gallery"), image(4, "2", split="gallery")]
    made, lines = arranged(found)
    assert not lines
    assert [len(made.samples[split]) for split in ("train", "query", "gallery")] == [2, 1, 2]
    assert made.notes == (
        "1 of 1 queries have no match of another camera in the gallery and do not count",
        "1 of 2 test identities are in the gallery alone: no query shows them",
    )


def test_two_spectra_that_are_not_aligned():
    found = some(14, ("1", "2"), 8, 1, ("rgb", "tir"))
    made, lines = arranged(found, aligned=False)
    assert not lines
    assert (made.modalities, made.aligned) == (("rgb", "tir"), False)
    for person in people(made.samples["train"]):
        seen = {s.modality for s in made.samples["train"] if s.labels.identity == person}
        assert seen == {"rgb", "tir"}
    assert {s.modality for s in made.samples["query"]} == {"tir"}
    assert {s.modality for s in made.samples["gallery"]} == {"rgb"}
    labels = {s.labels.identity: s.label for s in made.samples["train"]}
    assert sorted(labels.values()) == list(range(len(labels)))
    assert {s.label for s in made.samples["query"]} == {-1}
    alone = [p for p in people(found_labels(found)) if len({f.modality for f in found if f.identity == str(p)}) < 2]
    assert any(note.startswith(f"{len(alone)} of ") and note.endswith("of one spectrum alone") for note in made.notes)


def found_labels(found):
    return arrange._samples(
        [arrange._Row({each.modality: each}) for each in found],
        {each.identity: int(each.identity) for each in found},
        {each.camera: 0 for each in found},
        {"": 0},
        single=True,
        train=False,
    )


def test_three_aligned_spectra_are_one_sample():
    found = [image(p, "1", shot, m) for p in range(4) for shot in range(3) for m in ("tir", "rgb", "nir")]
    made, lines = arranged(found)
    assert not lines
    assert (made.modalities, made.aligned, made.cameras) == (("rgb", "nir", "tir"), True, ())
    assert made.notes == ("all images are of one camera, so nothing is excluded by camera when scores are made",)
    sample = made.samples["train"][0]
    assert list(sample.images) == ["rgb", "nir", "tir"]
    assert len({path.name for path in sample.images.values()}) == 1
    assert sum(map(len, made.samples.values())) == 12


def test_numbers_of_identities_and_cameras():
    found = [image(name, camera, shot) for name in ("10", "9", "2") for camera in ("c10", "c2") for shot in (0, 1)]
    made, _ = arranged(found)
    assert made.cameras == ("c2", "c10")
    assert {i for split in made.samples.values() for i in people(split)} == {2, 9, 10}
    assert made.identities == {}
    named, _ = arranged([image(name, "", shot) for name in ("bob", "anna", "7") for shot in (0, 1)])
    assert named.identities == {"7": 1, "anna": 2, "bob": 3}
    padded, _ = arranged([image(name, "", shot) for name in ("07", "7", "8") for shot in (0, 1)])
    assert sorted({i for split in padded.samples.values() for i in people(split)}) == [1, 2, 3]


def test_boxes_of_nobody_are_left_out():
    found = [image(person, "1", shot) for person in (-1, 1, 2, 3) for shot in (0, 1)]
    made, _ = arranged(found)
    assert sum(map(len, made.samples.values())) == 6
    assert made.notes[0] == "2 images of identity -1 are left out, as boxes of nobody"


@pytest.mark.parametrize(
    "drawing", [{"test_share": 0.0}, {"test_share": 1.0}, {"test_share": float("nan")}, {"seed": -1}]
)
def test_draws_that_make_no_sense(drawing):
    with pytest.raises(UserError, match=r"--test_share|--seed"):
        SplitDraw(**drawing)


TWO = [image(person, "1", shot) for person in (1, 2, 3) for shot in (0, 1)]


@pytest.mark.parametrize(
    ("found", "aligned", "line"),
    [
        ([*TWO, image(4)], None, "1 images have no camera, but others have: rgb/4/_0.jpg"),
        ([*TWO, image(4, "1", split="train")], None, "6 images have no split, but others have"),
        (TWO[:4], None, "2 identities are too few to draw from; there must be three, two to train on: 1, 2"),
        ([image(p, "1") for p in range(9)], None, "test identities have no second image"),
        ([*TWO, image(1, "1", 0, "nir")], None, "5 samples have no nir image of the same name"),
        ([*TWO, image(1, "1", 9, "tir")], None, "identities that are seen in rgb and tir are too few"),
        ([*TWO, image(1, "1", 0, "nir"), image(1, "1", 9, "tir")], False, "3 modalities that are not aligned"),
        ([image(p, "1", 0, m) for p in range(5) for m in ("nir", "tir")], False, "2 modalities that are not aligned"),
        (
            [image(1, "1", 0, "rgb"), image(2, "1", 0, "nir", key="1/1_0")],
            None,
            "samples have images whose labels differ",
        ),
        (
            [image(1, "1", 0), image(1, "1", 0), image(1, "1", 0, "nir")],
            None,
            "samples have two images of one modality",
        ),
        (
            [image(1, split="train"), image(1, shot=1, split="test")],
            None,
            "identities are both in training and in the test: 1",
        ),
        ([image(1, split="train"), image(2, split="query")], None, "1 splits have no image: gallery"),
        ([image(1, split="test"), image(2, split="test")], None, "1 splits have no image: train"),
        (
            [image(p, "1", 0, m, s) for p, m, s in ((1, "rgb", "train"), (2, "rgb", "test"), (2, "nir", "test"))],
            False,
            "1 training identities have no rgb or no nir image: 1",
        ),
    ],
)
def test_what_is_wrong_is_named(found, aligned, line):
    _, lines = arranged(found, aligned)
    assert any(line in each for each in lines), lines


def test_counts():
    made, _ = arranged(TWO)
    assert sum(samples for samples, _ in arrange.counts(made.samples).values()) == 6
    assert arrange.counts(made.samples)["train"] == (4, 2)
    np.testing.assert_equal(set(arrange.counts(made.samples)), {"train", "query", "gallery"})


def test_captions_of_unaligned_images():
    found = [
        image(p, "", shot, m, "train" if p < 3 else "test", caption=f"{m} {p} {shot}")
        for p in range(5)
        for m in ("rgb", "nir")
        for shot in (0, 1)
    ]
    made, lines = arranged(found, aligned=False)
    assert not lines
    assert made.captions
    for split, listed in made.samples.items():
        for sample in listed:
            shot = sample.file[-5]
            assert sample.text.caption == f"{sample.modality} {sample.labels.identity} {shot}"
            expected = tuple(f"rgb {sample.labels.identity} {each}" for each in (0, 1)) if split == "query" else ()
            assert sample.text.visible == expected
    aligned, _ = arranged([dataclasses.replace(each, split="") for each in found])
    assert not aligned.captions
    assert "captions are not kept: methods read them of visible and infrared" in " ".join(aligned.notes)


def test_captions_that_lack_are_named():
    said = {"train": "x", "test": ""}
    found = [
        image(p, "", 0, m, split, caption="x" if m == "nir" and p != 1 else said[split])
        for p, split in enumerate(("train", "train", "test"))
        for m in ("rgb", "nir")
    ]
    found[2] = dataclasses.replace(found[2], caption="")
    _, lines = arranged(found, aligned=False)
    assert lines == [
        "1 images have no caption, but others have: rgb/1/_0.jpg",
        "1 infrared test identities have no caption of a visible test image: 2",
    ]
