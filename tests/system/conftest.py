"""Drawn data and a config small enough to run the whole program in seconds."""

from __future__ import annotations

import pytest

from configs import demo
from mmreid_jax.testing import tiny


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Drawn once per session, in the way in which a run draws them."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def small(data_dir):
    """A config that trains in seconds."""

    def make(**changes):
        config = demo.get_config()
        config.data.data_dir = str(data_dir)
        config.data.drawn_identities = 6
        config.data.drawn_images = 6
        config.data.image_size = (32, 16)
        config.data.padding = 2
        config.data.threads = 1
        config.model.backbone = "vit_micro"
        config.init.backbone = ""
        config.train.identities_per_batch = 4
        config.train.images_per_identity = 2
        config.train.eval_every = 2
        config.optim.epochs = 2
        config.mtt.optim.epochs = 1
        config.mtt.batch_size = 4
        config.eval.batch_size = 16
        config.eval.report = False
        config.eval.missing_modalities = False
        config.task = "train"
        for path, value in changes.items():
            node = config
            *parents, leaf = path.split("__")
            for parent in parents:
                node = node[parent]
            node[leaf] = value
        return config.lock()

    return make


@pytest.fixture
def tiny_run(data_dir):
    """A config of a method that trains in seconds on drawn people."""

    def make(method, **changes):
        common = {
            "data__drawn": True,
            "data__data_dir": str(data_dir),
            "data__drawn_identities": 6,
            "data__drawn_images": 12,
            "data__padding": 2,
            "data__threads": 1,
            "train__images_per_identity": 2,
            "train__eval_every": 2,
            "optim__epochs": 2,
            "eval__batch_size": 16,
            "eval__report": False,
        }
        return tiny.config(method, **{**common, **changes}).lock()

    return make
