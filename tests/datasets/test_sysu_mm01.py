"""SYSU-MM01: lists of identities, modalities that are missing, and the published counts."""

import collections
import shutil

import numpy as np
import pytest

from mmreid_jax.datasets import disk
from mmreid_jax.errors import UserError
from tests.datasets import trees
from tests.datasets.lists import listed, manifest


def test_sysu_identities_without_one_modality_are_named(tmp_path):
    root = trees.write("sysu_mm01", tmp_path)
    shutil.rmtree(root / "cam6" / "0002")
    with pytest.raises(UserError, match=r"1 of 3 identities .* for train have no image in cam1.* or .*cam6: 0002"):
        listed("sysu_mm01", root)
    shutil.rmtree(root / "cam4" / "0010")
    assert {sample.labels.identity for sample in listed("sysu_mm01", root, "gallery")} == {6}
    shutil.rmtree(root / "cam6" / "0010")
    with pytest.raises(UserError, match=r"1 of 2 identities .* for query .*: 0010; complete the copy"):
        listed("sysu_mm01", root, "query")


def test_sysu_lists_that_share_identities_are_an_error(tmp_path):
    root = trees.write("sysu_mm01", tmp_path)
    (root / "exp/test_id.txt").write_text("6,4")
    with pytest.raises(UserError, match=r"1 identities of .*test_id\.txt are also in .*\(4\)"):
        listed("sysu_mm01", root)


def test_true_counts_of_sysu(true_tree):
    root = true_tree("sysu_mm01")
    train, query, gallery = (listed("sysu_mm01", root, split) for split in ("train", "query", "gallery"))
    assert collections.Counter(sample.modality for sample in train) == {"rgb": 22258, "nir": 11909}
    per_camera = collections.Counter(sample.labels.camera for sample in train)
    assert [per_camera[camera] for camera in range(6)] == [4721, 5753, 7909, 5811, 5973, 4000]
    assert len(disk.read_identities(root / "exp" / "train_id.txt")) == 296
    assert len(disk.read_identities(root / "exp" / "val_id.txt")) == 99
    # The arrays that the references train on: images of class 0, then 1, ..., in the order of the identities.
    public = manifest("sysu_train_counts")
    for modality, column in (("rgb", "n_rgb"), ("nir", "n_ir")):
        rows = [sample for sample in train if sample.modality == modality]
        labels = np.repeat(np.arange(395), [int(row[column]) for row in public])
        assert [sample.label for sample in rows] == labels.tolist()
        assert [sample.labels.identity for sample in rows] == [int(public[label]["original_id"]) for label in labels]
    assert collections.Counter(sample.labels.camera for sample in query) == {2: 1883, 5: 1920}
    assert len(gallery) == 6775
    assert [len({s.labels.identity for s in gallery if s.labels.camera == c}) for c in (0, 1, 3, 4)] == [56, 56, 94, 95]
    assert query[0].labels.identity == 6
