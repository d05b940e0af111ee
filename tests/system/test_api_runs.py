"""Training and test-time training from Python: the models that come back are those on the disk."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

import mmreid_jax
from mmreid_jax import UserError, locks
from mmreid_jax.testing import tiny
from tests.test_model import DRAWN

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    values = {
        **DRAWN,
        "data.data_dir": str(tmp_path_factory.mktemp("data")),
        "optim.epochs": 1,
        "mtt.optim.epochs": 1,
        "mtt.reestimate_statistics": True,
        "train.identities_per_batch": 2,
        "train.images_per_identity": 4,
    }
    return tiny.config("htt", **{key.replace(".", "__"): value for key, value in values.items()})


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return mmreid_jax.train(config, folder), folder


def last_scores(folder):
    return json.loads((folder / "scores.jsonl").read_text().splitlines()[-1])


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 32, 16, 3), np.uint8)


def test_training_gives_the_model_of_its_workdir(trained, images):
    model, folder = trained
    np.testing.assert_array_equal(model.embed(images), mmreid_jax.load(folder).embed(images))
    row = model.evaluate()[0].row()
    assert row["mAP"] == pytest.approx(last_scores(folder)["mAP"])


def test_a_config_that_only_adapts_is_not_trained(config, tmp_path):
    other = config.copy_and_resolve_references()
    other.task = "adapt"
    with pytest.raises(UserError, match=r"call adapt\(load"):
        mmreid_jax.train(other, tmp_path)


def test_adaptation_gives_another_model(trained, images, tmp_path):
    model, _ = trained
    before = model.embed(images)
    adapted = mmreid_jax.adapt(model, tmp_path, batch_size=4)
    np.testing.assert_array_equal(model.embed(images), before)
    assert np.abs(adapted.embed(images) - before).max() > 1e-5
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    best = next(row for row in rows if "best epoch" in row["label"])
    # With the statistics of the test data, which the checkpoint does not hold.
    assert adapted.evaluate()[0].row()["mAP"] == pytest.approx(best["mAP"])
    again = mmreid_jax.adapt(model, tmp_path, batch_size=4)
    np.testing.assert_allclose(again.embed(images), adapted.embed(images), atol=1e-6)
    with pytest.raises(UserError, match="holds the adaptation of another model or with other settings"):
        mmreid_jax.adapt(model, tmp_path, batch_size=2)
    with locks.work_directory(tmp_path), pytest.raises(UserError, match=f"is in use by process {os.getpid()} on"):
        mmreid_jax.adapt(model, tmp_path, batch_size=4)


def test_settings_of_an_adaptation_are_checked(trained, tmp_path):
    for wrong in ({"batchsize": 4}, {"batch_size": "four"}, {"optim": {"epoch": 2}}):
        with pytest.raises(UserError, match=r"config\.mtt"):
            mmreid_jax.adapt(trained[0], tmp_path / "none", **wrong)
    assert not (tmp_path / "none").exists()
