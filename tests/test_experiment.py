"""What a config makes of the data."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from configs import common
from mmreid_jax import experiment
from mmreid_jax.datasets import drawing, prepare
from mmreid_jax.errors import UserError
from tests.datasets import trees


def test_training_on_the_part_that_a_list_names(tmp_path):
    root = trees.write("rgbnt201", tmp_path / "raw")
    train = trees.NAMES["rgbnt201"]["train_171"]
    trees.write("rgbnt201", tmp_path / "raw", {"train_141": train[:3]})
    prepare.prepare("rgbnt201", root, tmp_path / "data")
    data = common.data()
    data.data_dir, data.cache_gib = str(tmp_path / "data"), 0.0
    assert len(experiment.load_splits(data).train) == len(train)
    # A folder of the original data set, or any path.
    for place in ("train_141", str(root / "train_141")):
        data.train_list = place
        splits = experiment.load_splits(data)
        assert sorted(splits.train.file.tolist()) == sorted(train[:3])
        assert splits.facts().identities == 2
        assert np.array_equal(splits.query.file, splits.gallery.file)
        assert len(splits.query) == len(trees.NAMES["rgbnt201"]["test"])
    data.train_list = "train_142"
    with pytest.raises(UserError, match=r"neither a folder nor a list .*RGBNT201/train_142"):
        experiment.load_splits(data)


def drawn_data(tmp_path, **changed):
    data = common.data()
    usual = {"dataset": "regdb", "drawn": True, "drawn_identities": 3, "drawn_images": 4, "data_dir": str(tmp_path)}
    data.update(usual | changed)
    return data


def test_data_that_were_drawn_are_known(tmp_path):
    """Also where they were prepared like real ones, which a config knows nothing of."""

    numbers = {"identities": 2, "images_per_identity": 2, "image_size": (32, 16)}
    prepare.prepare("rgbnt201", drawing.draw("rgbnt201", tmp_path / "drawn", **numbers).root, tmp_path / "data")
    trees.write("rgbnt201", tmp_path / "raw")
    prepare.prepare("rgbnt201", tmp_path / "raw", tmp_path / "photographs")
    for folder, drawn in (("data", True), ("photographs", False)):
        data = common.data()
        data.update(dataset="rgbnt201", data_dir=str(tmp_path / folder))
        splits = experiment.load_splits(data)
        opened = experiment.Experiment(SimpleNamespace(data=data), tmp_path, splits, None, None)
        assert opened.drawn == drawn
        assert opened.data_name == ("rgbnt201 (drawn data)" if drawn else "rgbnt201")


def test_text_is_read_where_it_is_asked_for(tmp_path):
    assert experiment.load_splits(drawn_data(tmp_path)).train.captions is None
    splits = experiment.load_splits(drawn_data(tmp_path, text=True))
    assert list(splits.train.captions) == ["caption", "rephrased"]
    assert splits.query.captions is None
    assert list(splits.gallery.captions) == ["rgb", "tir"]
    other = experiment.load_splits(drawn_data(tmp_path, text=True, caption_seed=2))
    assert other.gallery.captions["rgb"].tolist() != splits.gallery.captions["rgb"].tolist()
    assert other.gallery.captions["tir"].tolist() == splits.gallery.captions["tir"].tolist()


def test_text_of_aligned_images_is_that_of_their_modalities(tmp_path):
    asked = {"dataset": "rgbnt201", "text": True, "captioner": "QwenVL"}
    splits = experiment.load_splits(drawn_data(tmp_path, **asked))
    for table in (splits.train, splits.query, splits.gallery):
        assert list(table.captions) == ["rgb", "nir", "tir"]
        assert all(text for texts in table.captions.values() for text in texts)
    fewer = experiment.load_splits(drawn_data(tmp_path, **asked, modalities=("rgb", "tir")))
    assert list(fewer.query.captions) == ["rgb", "tir"]
    with pytest.raises(UserError, match="without the texts of captioner 'Blip', but with those of QwenVL"):
        experiment.load_splits(drawn_data(tmp_path, **asked | {"captioner": "Blip"}))


def test_drawn_data_from_before_there_were_captions_get_them(tmp_path):
    first = experiment.load_splits(drawn_data(tmp_path))
    (root,) = (tmp_path / "drawn").glob("regdb-*/RegDB")
    shutil.rmtree(root / "Text")
    shutil.rmtree(root.parent / "prepared")
    prepare.prepare("regdb", root, root.parent / "prepared")
    splits = experiment.load_splits(drawn_data(tmp_path, text=True))
    assert splits.train.captions is not None
    np.testing.assert_array_equal(splits.train.file, first.train.file)


def test_options_of_views_and_text(tmp_path):
    data = drawn_data(tmp_path, text=True, rephrased=0.25)
    data.erasing_of, data.grey_of = (("tir", 0.5),), [["rgb", 0.1]]
    options = experiment.image_options(data)
    assert (options.erasing_of, options.grey_of) == ((("tir", 0.5),), (("rgb", 0.1),))
    assert options.rephrased == 0.25
    data.text = False
    assert experiment.image_options(data).rephrased == 0
    assert experiment.text_options(data) is None
