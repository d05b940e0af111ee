"""What a config makes of the data."""

import numpy as np
import pytest

from configs import common
from mmreid_jax import experiment, prepare
from mmreid_jax.errors import UserError
from tests.builders import trees


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
