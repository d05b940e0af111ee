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


class TestGroups:
    def groups(self, size, halting=(), count=20, start=0):
        steps = ((index, 0, False) for index in range(start, count))
        found = list(train.grouped(steps, size, lambda index, epoch, ends: index in halting))
        assert [index for group in found for index, _, _ in group] == list(range(start, count))
        return [len(group) for group in found]

    def test_one_by_one(self):
        assert self.groups(1, halting=(3, 9)) == [1] * 20

    def test_what_does_not_fill_a_group_comes_one_by_one(self):
        assert self.groups(8) == [8, 8, 1, 1, 1, 1]
        assert self.groups(8, start=13) == [1] * 7

    def test_no_group_goes_on_after_a_step_that_halts(self):
        assert self.groups(5, halting=(4, 9, 14)) == [5, 5, 5, 5]
        assert self.groups(4, halting=(0, 6, 7, 13)) == [1, 4, 1, 1, 1, 4, 1, 1, 4, 1, 1]

    def test_mistake(self):
        config = SimpleNamespace(train=SimpleNamespace(steps_per_call=0))
        with pytest.raises(UserError, match=r"config\.train\.steps_per_call is 0"):
            train.steps_per_call(config)


def test_what_is_due_after_a_step():
    job = SimpleNamespace(plan=SimpleNamespace(epoch_ends=np.array([3, 6, 9, 12, 15])), evaluate_every=3)
    job.checkpoint_every = 2
    due = [train.Job.due(job, epoch, True) for epoch in range(5)]
    assert due == [(False, False), (False, True), (True, False), (False, True), (True, True)]
    assert train.Job.due(job, 4, False) == (False, False)
