"""Thresholds beside a model: written and read, and as squared Euclidean distances."""

import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import distances, thresholds


def threshold(**changes):
    values = {
        **{"distance": 0.5, "query": ("nir",), "gallery": ("rgb",), "wanted": 0.05, "false_alarms": 0.04},
        **{"false_alarms_interval": (0.01, 0.08), "found": 0.6, "found_interval": (0.5, 0.7), "queries": 10},
        **{"gallery_size": 20, "dataset": "own:shop", "protocol": "own v1", "which": "best", **changes},
    }
    return thresholds.Threshold(**values)


def test_what_was_written_is_read(tmp_path):
    both = [threshold(), threshold(query=("rgb",), gallery=("nir",))]
    assert thresholds.write(tmp_path, both) == tmp_path / thresholds.FILE
    assert thresholds.read(tmp_path) == both
    assert thresholds.read(tmp_path / "nowhere") == []


@pytest.mark.parametrize("text", ["", "{}x", '[{"distance": 1}]', "[3]", '{"a": 1}'])
def test_a_damaged_file_is_named(text, tmp_path):
    (tmp_path / thresholds.FILE).write_text(text)
    with pytest.raises(UserError, match=r"threshold.json is damaged .*calibrate"):
        thresholds.read(tmp_path)


def test_a_distance_that_is_no_number_is_damage(tmp_path):
    thresholds.write(tmp_path, [threshold(distance="near")])
    with pytest.raises(UserError, match="damaged"):
        thresholds.read(tmp_path)


def test_in_words():
    assert threshold().describe() == (
        "nir to rgb: at distance 0.5000 4.0 % [1.0, 8.0] of searches for somebody absent find anybody, "
        "60.0 % [50.0, 70.0] of searches for somebody present find them first"
    )


@pytest.mark.parametrize("kind", distances.KINDS)
def test_every_distance_as_a_squared_one(kind):
    first, second = np.random.default_rng(0).normal(size=(2, 1, 8))
    first, second = first / np.linalg.norm(first), second / np.linalg.norm(second)
    value = float(distances.whole(kind, first, second)[0, 0])
    assert thresholds.squared(value, kind) == pytest.approx(((first - second) ** 2).sum(), rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"distance": float("nan")},
        {"distance": True},
        {"false_alarms": None},
        {"gallery_size": "a"},
        {"found_interval": (1, 2, 3)},
        {"query": (["rgb"],)},
        {"which": 3},
    ],
)
def test_every_value_is_checked(changes, tmp_path):
    thresholds.write(tmp_path, [threshold(**changes)])
    with pytest.raises(UserError, match=rf"is damaged \({next(iter(changes))} is"):
        thresholds.read(tmp_path)
