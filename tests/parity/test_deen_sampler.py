"""DEEN's identity sampler against index lists of its code."""

from __future__ import annotations

import re

import deen_kinds
import numpy as np
import pytest

from configs import deen_sysu
from mmreid_jax.data import samplers
from mmreid_jax.models.deen import COPIES


@pytest.mark.parametrize("golden", deen_kinds.of_kind("sampler"), ids=lambda golden: golden.name)
def test_epochs(golden):
    facts, sides = golden.json, ("rgb", "nir")
    labels = [golden.arrays["color_label"], golden.arrays["thermal_label"]]
    epochs = sorted({int(match[1]) for key in golden.arrays if (match := re.match(r"epoch(\d+)/", key))})
    plan = samplers.cross_modal_reference(
        np.concatenate(labels),
        np.repeat(sides, [len(own) for own in labels]),
        sides,
        facts["ids_per_batch"],
        facts["num_pos"],
        epochs[-1] + 1,
        facts["seed"],
    )
    found = {"color_label": labels[0], "thermal_label": labels[1]}
    for epoch in epochs:
        rows = np.concatenate([draw.indices for draw in plan if draw.epoch == epoch])
        found[f"epoch{epoch}/color"], found[f"epoch{epoch}/thermal"] = rows[:, 0], rows[:, 1] - len(labels[0])
        found[f"epoch{epoch}/len"] = np.array([max(map(len, labels)), len(rows)])
        found[f"epoch{epoch}/steps"] = np.array(np.diff(plan.epoch_ends, prepend=0)[epoch])
    assert len(np.unique(labels[0])) == facts["n_ids"]
    assert set(found) == set(golden.arrays)
    for key, expected in golden.arrays.items():
        np.testing.assert_array_equal(found[key], expected, err_msg=key)


@pytest.mark.parametrize("golden", deen_kinds.of_kind("sampler"), ids=lambda golden: golden.name)
def test_the_released_batch(golden):
    released, train = golden.json["released"], deen_sysu.get_config().train
    people, images = train.identities_per_batch, train.images_per_identity
    assert (people, images) == (released["ids_per_batch"], released["num_pos"])
    assert 2 * people * images == released["images_per_step"]
    assert COPIES * 2 * people * images == released["rows_after_DEE"]
