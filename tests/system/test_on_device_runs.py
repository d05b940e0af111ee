"""Whole runs with images on the devices, with several steps in one call, with a trace."""

from __future__ import annotations

import json

import pytest

from mmreid_jax import adapt, train
from mmreid_jax.training import logs
from tests.system.test_runs import assert_same_state, final_state

RATES = ("images_per_second", "time")


def lines(workdir):
    """What a run has logged, but for how fast it was."""
    entries = logs.read_metrics(workdir / logs.FILE)
    return [{name: value for name, value in entry.items() if name not in RATES} for entry in entries]


@pytest.mark.slow
def test_a_run_with_images_on_the_device_is_the_same_run(small, tmp_path, capsys):
    """States and logs are equal bit for bit; every augmentation is in use."""
    changes = {"data__flip": 0.5, "data__random_crop": 0.5, "data__brightness": 0.2, "data__contrast": 0.2}
    changes |= {"data__random_patch": 0.5, "train__log_every": 3, "train__evaluate_first": False}
    train.main(small(**changes), tmp_path / "host")
    assert "on the device" not in capsys.readouterr().out
    together = {"data__on_device": "on", "train__steps_per_call": 3, "train__profile": 1}
    train.main(small(**changes, **together), tmp_path / "device")
    assert capsys.readouterr().out.count(" on the device: ") == 2  # train and test
    assert_same_state(final_state(tmp_path / "host"), final_state(tmp_path / "device"))
    assert lines(tmp_path / "host") == lines(tmp_path / "device")
    assert list((tmp_path / "device" / "profile").rglob("*.xplane.pb"))


ENHANCED = {"data__moderate_enhancement": 0.5, "data__radical_enhancement": 0.5}
PRETEXT = {"train__identities_per_batch": 1, "train__images_per_identity": 8, "eval__examined": 20}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "changes"),
    [("caj", {}), ("deen", ENHANCED), ("mmgl", PRETEXT), ("tvi_lfm", {"data__rephrased": 0.5})],
)
def test_pairs_second_views_indices_and_captions(tiny_run, tmp_path, method, changes):
    changes = {"optim__epochs": 1, "train__log_every": 2, **changes}
    for choice in ("off", "on"):
        train.main(tiny_run(method, **changes, data__on_device=choice), tmp_path / choice)
    assert_same_state(final_state(tmp_path / "off"), final_state(tmp_path / "on"))
    assert lines(tmp_path / "off") == lines(tmp_path / "on")


@pytest.mark.slow
@pytest.mark.parametrize("episodic", [False, True])
def test_adaptation(small, tmp_path, episodic):
    train.main(small(optim__epochs=1), tmp_path / "trained")
    changes = {"init__checkpoint": str(tmp_path / "trained"), "mtt__episodic": episodic, "mtt__episode_size": 20}
    found = {}
    for choice in ("off", "on"):
        adapt.main(small(task="adapt", **changes, data__on_device=choice), tmp_path / choice)
        rows = map(json.loads, (tmp_path / choice / logs.SCORES_FILE).read_text().splitlines())
        found[choice] = [{name: value for name, value in row.items() if name != "time"} for row in rows]
    assert found["off"] == found["on"]
    if not episodic:
        assert lines(tmp_path / "off") == lines(tmp_path / "on")
