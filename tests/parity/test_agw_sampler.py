"""AGW's identity sampler against index lists of its code, and against the log of a whole run on SYSU-MM01."""

from __future__ import annotations

import csv
import gzip
import re
from importlib import resources

import numpy as np
import pytest
import vi_kinds

from mmreid_jax.data import samplers

GOLDENS = vi_kinds.of_kind("agw", "sampler")
LOGS = vi_kinds.of_kind("agw", "log")
MODALITIES = ("rgb", "nir")


@pytest.mark.parametrize("golden", GOLDENS)
def test_epochs(golden):
    facts = golden.json
    labels = [golden.arrays["color_label"], golden.arrays["thermal_label"]]
    epochs = sorted({int(match[1]) for key in golden.arrays if (match := re.match(r"epoch(\d+)/", key))})
    plan = samplers.cross_modal_reference(
        np.concatenate(labels),
        np.repeat(MODALITIES, [len(own) for own in labels]),
        MODALITIES,
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


@pytest.mark.parametrize("golden", LOGS)
def test_every_epoch_of_the_log(golden):
    """The first and last three indices that the authors' own run printed, from the true number of images of each."""
    facts = golden.json
    packed = (resources.files("mmreid_jax") / "datasets" / "manifests" / "sysu_train_counts.csv.gz").read_bytes()
    counts = list(csv.DictReader(gzip.decompress(packed).decode().splitlines()))
    labels = [np.repeat(np.arange(len(counts)), [int(row[key]) for row in counts]) for key in ("n_rgb", "n_ir")]
    plan = samplers.cross_modal_reference(
        np.concatenate(labels),
        np.repeat(MODALITIES, [len(own) for own in labels]),
        MODALITIES,
        facts["identities_per_batch"],
        facts["images_per_identity"],
        len(facts["epochs"]),
        facts["seed"],
    )
    assert set(np.diff(plan.epoch_ends, prepend=0)) == {facts["groups_per_epoch"]}
    for entry in facts["epochs"]:
        first, last = plan.epoch_ends[entry["epoch"]] - facts["groups_per_epoch"], plan.epoch_ends[entry["epoch"]] - 1
        ends = np.concatenate([plan[int(first)].indices[:3], plan[int(last)].indices[-3:]])
        assert ends[:, 0].tolist() == entry["visible_first3_last3"]
        assert (ends[:, 1] - len(labels[0])).tolist() == entry["infrared_first3_last3"]
