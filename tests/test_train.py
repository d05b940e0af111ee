"""Which batches a config asks for."""

from types import SimpleNamespace

import numpy as np
import pytest

from configs import common
from mmreid_jax import train
from mmreid_jax.errors import UserError

RECORDS = SimpleNamespace(
    name="made up",
    identity=np.repeat(np.arange(8), 12),
    camera=np.arange(96) % 5,
    scene=(np.arange(96) // 7) % 4,
    modality=None,
)


def plan(sampler):
    options = common.train()
    options.sampler, options.identities_per_batch, options.images_per_identity = sampler, 3, 4
    config = SimpleNamespace(train=options, optim=SimpleNamespace(epochs=2), seed=1)
    return train.plan_of(SimpleNamespace(config=config, splits=SimpleNamespace(train=RECORDS)))


@pytest.mark.parametrize(
    ("sampler", "column"),
    [("counter", "identity"), ("reference", "identity"), ("cameras", "camera"), ("scenes", "scene")],
)
def test_every_batch_is_p_blocks_of_k(sampler, column):
    for draw in plan(sampler):
        blocks = getattr(RECORDS, column)[draw.indices].reshape(3, 4)
        assert np.all(blocks == blocks[:, :1])
        assert len(np.unique(blocks[:, 0])) == 3


def test_unknown_sampler():
    with pytest.raises(UserError, match=r"sampler is 'camera'; choose one of counter, reference, cameras, scenes"):
        plan("camera")
