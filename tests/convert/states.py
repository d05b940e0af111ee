"""State_dicts that several tests of this folder read."""

from __future__ import annotations

import jax
import numpy as np

from mmreid_jax.convert import layout as layouts


def same_bits(actual, expected):
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert actual.tobytes() == expected.tobytes()


def assert_round_trip(layout, entries):
    variables, report = layouts.import_state(layout, entries)
    assert set(report.used) | set(report.dropped) == set(entries)
    exported = layouts.export_state(layout, variables)
    for name, value in entries.items():
        if name in report.used:
            same_bits(exported[name], value)
        elif name in exported:
            assert exported[name].shape == value.shape
            assert exported[name].dtype == value.dtype
            assert not exported[name].any()
    assert set(exported) <= set(entries)
    used = [name for name in entries if name in report.used]
    assert [name for name in exported if name in report.used] == used, "the reference's order"
    again, _ = layouts.import_state(layout, exported, variables)
    jax.tree.map(same_bits, again, variables)
    return variables, report, exported


WIDTH, DEPTH = 6, 3


def resnet_entries(stages, bottleneck):
    out = {}

    def conv(name):
        out[f"{name}.weight"] = np.ones((2, 2, 1, 1), np.float32)

    def norm(name):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            out[f"{name}.{leaf}"] = np.ones(2, np.float32)
        out[f"{name}.num_batches_tracked"] = np.array(1)

    conv("conv1")
    norm("bn1")
    for stage, blocks in enumerate(stages, 1):
        for block in range(blocks):
            for number in range(1, 4 if bottleneck else 3):
                conv(f"layer{stage}.{block}.conv{number}")
                norm(f"layer{stage}.{block}.bn{number}")
            if block == 0 and (bottleneck or stage > 1):
                conv(f"layer{stage}.{block}.downsample.0")
                norm(f"layer{stage}.{block}.downsample.1")
    return out
