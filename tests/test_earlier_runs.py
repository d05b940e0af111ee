"""Runs that earlier versions of the library wrote open, say the same, and go on; see `tests.earlier_runs.make`."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import pytest

from mmreid_jax import train, validation
from mmreid_jax.errors import UserError
from mmreid_jax.model import Extractor
from mmreid_jax.training import checkpoints, logs
from mmreid_jax.training.config import differences, flatten
from tests.earlier_runs import make

RUNS = sorted(path.parent for path in make.OUT.glob("*/features.json"))


def stored(run):
    (folder,) = (run / checkpoints.FOLDER).iterdir()
    return json.loads((folder / "meta" / "metadata").read_text())


def today(run, data_dir):
    """The config of a run as a config file of today would say it."""
    config = validation.complete(stored(run)["config"])
    config.data.data_dir = str(data_dir)
    return config


def test_there_are_runs():
    assert [run.name for run in RUNS] == ["before_images_on_devices", "schema_of_configs"]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_run_opens_and_says_the_same(run):
    model = Extractor(run)
    features = model.method.embed(model._variables, make.noise(model.method.facts.modalities))["after"]
    expected = np.array(json.loads((run / "features.json").read_text()))
    np.testing.assert_allclose(np.asarray(features), expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    validation.check(model.config, starts=False, trained=False)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_keys_of_later_versions_are_no_difference(run, tmp_path):
    config = today(run, tmp_path)
    meta = stored(run)
    train.check_same_run(config, meta, tmp_path)
    # Whatever key a version had not: at its default of then it changes nothing, at another value it does.
    for key in ("data.on_device", "model.unroll", "eval.embedding_scale", "train.compiler", "optim.clip_norm"):
        older = json.loads(json.dumps(meta))
        section, name = key.split(".")
        older["config"][section].pop(name, None)
        train.check_same_run(config, older, tmp_path)
    older["config"]["model"].pop("drop_path")
    changed = today(run, tmp_path)
    changed.model.drop_path = 0.25
    with pytest.raises(UserError, match=r"model\.drop_path: .* -> 0\.25"):
        train.check_same_run(changed, older, tmp_path)


def test_a_run_says_which_version_wrote_it():
    from mmreid_jax import __version__

    assert stored(RUNS[-1])["version"] == __version__
    assert all("version" in stored(run) for run in RUNS)


def test_the_oldest_run_lacks_keys():
    config = stored(RUNS[0])["config"]
    missing = set(flatten(validation.complete(config))) - set(flatten(config))
    assert {"data.on_device", "train.compiler", "train.steps_per_call", "train.profile"} <= missing
    assert differences(config, validation.complete(config))


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_run_goes_on(run, tmp_path, data_dir):
    workdir = tmp_path / "run"
    shutil.copytree(run, workdir)
    train.main(today(run, data_dir), workdir)
    entries = [entry for entry in logs.read_metrics(workdir / logs.FILE) if entry["kind"] == "eval"]
    assert [entry["step"] for entry in entries] == [8, 12]
    assert max(int(path.name) for path in (workdir / checkpoints.FOLDER).iterdir() if path.name.isdecimal()) == 12
    variables, meta = checkpoints.load_variables(workdir, which="last")
    assert meta["epoch"] == 3
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))
