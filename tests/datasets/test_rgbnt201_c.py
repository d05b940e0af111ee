"""RGBNT201-C: single images of RGBNT201, two modalities at a time."""

import numpy as np
import pytest

from mmreid_jax import datasets
from mmreid_jax.data.records import Records, View
from mmreid_jax.datasets import catalogue, subset, verify
from mmreid_jax.datasets.prepare import prepare
from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import metrics, protocols
from tests.datasets import trees
from tests.datasets.lists import listed

FOLDER = {"tir": "TI", "nir": "NI"}


@pytest.mark.parametrize("infrared", FOLDER)
def test_a_sample_is_one_image(infrared, tmp_path):
    root = trees.write("rgbnt201_c", tmp_path / "raw")
    name = f"rgbnt201_c/rgb_{infrared}"
    prepare(name, tmp_path / "raw", tmp_path / "data")
    train, query, gallery = (catalogue.load(name, split, tmp_path / "data") for split in datasets.get(name).splits)
    people, classes, cameras = [9, 9, 10, 328], [0, 0, 1, 2], [0, 2, 3, 1]
    assert train.identity.tolist() == people * 2
    assert train.label.tolist() == classes * 2
    assert train.camera.tolist() == cameras * 2
    assert train.modality.tolist() == ["rgb"] * 4 + [infrared] * 4
    assert list(train.views) == ["rgb", infrared]
    first = "000009_cam1_0_01.jpg"
    assert train.file[[0, 4]].tolist() == [f"train_171/{folder}/{first}" for folder in ("RGB", FOLDER[infrared])]
    assert train.encoded([4])[0]["image"] == (root / "train_171" / FOLDER[infrared] / first).read_bytes()
    for table, modality in ((query, "rgb"), (gallery, infrared)):
        assert list(table.views) == [modality]
        assert table.identity.tolist() == [258, 258, 299]
        assert table.camera.tolist() == [0, 1, 1]


@pytest.mark.parametrize("part", datasets.get("rgbnt201_c").parts)
def test_true_names_and_counts(part):
    """All public names of RGBNT201 are a complete copy."""
    public = verify.public_names(f"rgbnt201_c/{part}")
    assert {split: len(names) for split, names in public.items()} == {"train": 7902, "query": 836, "gallery": 836}
    tables = {}
    for split, names in public.items():
        files = np.array(sorted(names))
        identity = np.array([int(name.rpartition("/")[2][:6]) for name in files])
        zeros = np.zeros(len(files), int)
        tables[split] = Records(split, identity, zeros, zeros, files, {"rgb": View("image")}, None, zeros)
    assert str(verify.check(f"rgbnt201_c/{part}", tables)) == f"rgbnt201_c/{part}: complete"
    tables["gallery"] = tables["gallery"].select(np.arange(1, 836))
    assert "gallery lacks 1 of 836 samples" in str(verify.check(f"rgbnt201_c/{part}", tables))


def test_the_third_modality_is_not_needed_but_both_others_are(tmp_path):
    root = trees.write("rgbnt201_c", tmp_path)
    for path in (root / "train_171" / "NI").iterdir():
        path.unlink()
    assert len(listed("rgbnt201_c/rgb_tir", root)) == 8
    with pytest.raises(UserError, match=r"rgbnt201_c/rgb_nir: 4 of 4 samples .* have no nir image"):
        listed("rgbnt201_c/rgb_nir", root)


def test_the_papers_141_identities_can_be_named(tmp_path):
    """By base names, of both modalities; where base names do not tell files apart, whole ones are compared."""
    root = trees.write("rgbnt201_c", tmp_path / "raw")
    prepare("rgbnt201_c", tmp_path / "raw", tmp_path / "data")
    (root / "train_141").mkdir()
    (root / "train_141" / "000010_cam4_2_00.jpg").touch()
    part = subset.listed(catalogue.load("rgbnt201_c", "train", tmp_path / "data"), root / "train_141")
    assert part.identity.tolist() == [10, 10]
    assert part.modality.tolist() == ["rgb", "tir"]
    trees.write("sysu_mm01", tmp_path / "sysu")
    prepare("sysu_mm01", tmp_path / "sysu", tmp_path / "data")
    (tmp_path / "list.txt").write_text("0001.jpg\n")
    with pytest.raises(UserError, match=r"1 of 1 files listed .* such as 0001\.jpg"):
        subset.listed(catalogue.load("sysu_mm01", "train", tmp_path / "data"), tmp_path / "list.txt")


def test_protocols_with_and_without_the_image_of_the_same_moment():
    """Only the first keeps it; distances find nothing but it."""
    every = {each.name: each for each in datasets.get("rgbnt201_c").protocols}
    assert len(every) == 4
    table = Records(
        "test",
        np.array([1, 1, 2, 2]),
        np.array([0, 1, 0, 1]),
        np.zeros(4, int),
        np.array(list("abcd")),
        {"rgb": View("image")},
        None,
        np.arange(4),
    )
    distances = np.array([[0.0, 3, 1, 2], [3, 0, 1, 2], [1, 2, 0, 3], [1, 2, 3, 0]])
    rank1 = {
        name: metrics.evaluate(distances, table, table, protocol).cmc[0]
        for name, protocol in every.items()
        if protocol.direction == protocols.VISIBLE_SEARCHES
    }
    assert rank1 == {
        "rgbnt201_c_visible_to_infrared": 1.0,
        "rgbnt201_c_visible_to_infrared_other_cameras": 0.0,
    }
