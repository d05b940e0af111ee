"""LLCM: its lists, its test copies, and the published counts."""

import collections

import pytest

from mmreid_jax.errors import UserError
from tests.datasets import trees
from tests.datasets.lists import listed, manifest


def test_missing_test_copies_of_llcm_are_counted_and_named(tmp_path):
    root = trees.write("llcm", tmp_path)
    (root / "test_nir/cam9/0003/0003_c09_s183650_f20_nir.jpg").unlink()
    with pytest.raises(UserError, match=r"test_nir holds only 2 of the 3 images .*0003_c09_s183650_f20_nir\.jpg"):
        listed("llcm", root, "query")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Visible/7/male_back_v_00700_7.bmp", "entry 1 of .* not a file and a label"),
        ("Visible/7/male_back_v_00700_7.bmp x", "entry 1 of .* not a file and a label"),
        ("Thermal/7/male_back_t_00700_7.bmp 0", "is not Visible/<identity>/<name>.bmp"),
        ("Visible/7/male_back_v_00700_7.bmp 5", "disagree on the class of an identity: identity 7 has"),
        ("Visible/7/male_back_v_00700_7.bmp 1", "have no rgb image"),
        ("Visible/12/male_back_v_01200_12.bmp 1", "disagree on the class of an identity: 3 identities share 2"),
    ],
)
def test_a_damaged_list_of_images_is_an_error(line, message, tmp_path):
    root = trees.write("regdb", tmp_path)
    (root / "idx/train_visible_1.txt").write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        listed("regdb", root)


def test_a_name_of_another_form_in_a_list_of_llcm_is_an_error(tmp_path):
    root = trees.write("llcm", tmp_path)
    trees.write_image(root / "vis/0250/0251_c03_s200519_f1_vis.jpg", (16, 32))
    (root / "idx/train_vis.txt").write_text("vis/0250/0251_c03_s200519_f1_vis.jpg 0\n")
    with pytest.raises(UserError, match=r"which is not vis/PPPP/PPPP_cCC_sTTTTTT_fFFFF_vis\.jpg"):
        listed("llcm", root)


@pytest.mark.slow(short=True)
def test_true_counts_of_llcm(true_tree):
    root = true_tree("llcm")
    train, query, gallery = (listed("llcm", root, split) for split in ("train", "query", "gallery"))
    rows = [row for part in ("train_vis", "train_nir") for row in manifest("llcm") if row["list"] == part]
    assert [(sample.file, sample.label) for sample in train] == [(row["file"], int(row["label"])) for row in rows]
    assert collections.Counter(sample.modality for sample in train) == {"rgb": 16946, "nir": 13975}
    assert len({sample.label for sample in train}) == 713
    assert (len(query), len(gallery)) == (7166, 8680)
    infrared, visible = (collections.Counter(s.labels.camera for s in table) for table in (query, gallery))
    assert [visible[camera] for camera in range(9)] == [139, 12, 2773, 3063, 1994, 18, 345, 252, 84]
    assert [infrared[camera] for camera in range(9)] == [19, 47, 0, 58, 2119, 4276, 217, 311, 119]
    folders = [{(s.labels.identity, s.labels.camera) for s in table} for table in (query, gallery)]
    assert [len(found) for found in folders] == [619, 484]
