"""Whatever a user gets wrong is answered by one line that says what, where and what to do, and a non-zero status."""

from __future__ import annotations

import errno
import pathlib
import pickle
import shutil
import subprocess
import sys

import jax.numpy as jnp
import pytest

from mmreid_jax import errors, evaluate, experiment, train
from mmreid_jax.commands import convert as convert
from mmreid_jax.losses import identity
from mmreid_jax.training import checkpoints

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def fails(capsys):
    """Runs a command that must fail; returns its one line."""

    def run(command, *arguments):
        with pytest.raises(SystemExit) as stopped:
            errors.run_command(command, *arguments)
        assert stopped.value.code not in (0, None)
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert len(lines) == 1, lines
        return lines[0]

    return run


def test_missing_data_folder(small, tmp_path, fails):
    config = small(data__drawn=False, data__data_dir=str(tmp_path / "nothing"))
    message = fails(train.main, config, tmp_path / "run")
    assert "nothing" in message
    assert "drawn" in message
    assert not (tmp_path / "run").exists()


def test_unknown_config_key_names_the_nearest(tmp_path):
    command = [sys.executable, "main.py", "--config", "configs/demo.py", "--config.optim.learning_rate=0.1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "optim.lr" in done.stderr or "learning_rate" in done.stderr
    command[-1] = "--config.optim.momentun=0.1"
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "optim.momentum" in done.stderr


def test_batch_that_does_not_fit(small, tmp_path, fails):
    message = fails(train.main, small(train__identities_per_batch=50), tmp_path)
    assert "50" in message
    assert "identities" in message


def test_batch_that_cannot_be_spread_over_the_devices(small, tmp_path, fails):
    message = fails(train.main, small(train__identities_per_batch=3, train__images_per_identity=3), tmp_path)
    assert "8 devices" in message


@pytest.mark.slow
def test_checkpoint_of_another_architecture(small, tmp_path, fails):
    fit(small(), tmp_path / "run")
    other = small(model__backbone="vit_mini", init__checkpoint=str(tmp_path / "run"))
    message = fails(evaluate.main, other, tmp_path / "other")
    assert "backbone" in message
    assert "32" in message
    assert "96" in message


def test_no_checkpoint_at_all(small, tmp_path, fails):
    message = fails(evaluate.main, small(init__checkpoint=str(tmp_path / "empty")), tmp_path / "run")
    assert "there is no such file or directory" in message


@pytest.mark.slow
def test_workdir_of_another_run(small, tmp_path, fails):
    fit(small(), tmp_path)
    message = fails(train.main, small(optim__lr=0.5), tmp_path)
    assert "optim.lr" in message
    assert "--workdir" in message


def test_a_pickle_that_runs_code_is_refused(tmp_path, fails):
    class Evil:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "pwned",)

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    source, out = str(tmp_path / "evil.pth"), str(tmp_path / "out")
    message = fails(convert.main, ["--layout", "vit", "--source", source, "--out", out])
    assert "evil.pth" in message
    assert not (tmp_path / "pwned").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_nan_names_the_first_bad_term(small, tmp_path, fails, monkeypatch):
    true = identity.cross_entropy
    monkeypatch.setattr(identity, "cross_entropy", lambda *a, **k: true(*a, **k) * jnp.nan)
    message = fails(train.main, small(), tmp_path)
    assert "'ce'" in message
    with pytest.raises(errors.UserError):
        checkpoints.load_variables(tmp_path)


@pytest.mark.slow
def test_full_disk(small, tmp_path, fails, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints.ocp.CheckpointManager, "save", full)
    message = fails(train.main, small(), tmp_path)
    assert "space" in message


def test_empty_gallery(small, tmp_path, fails, monkeypatch):
    whole = experiment.catalogue.load
    monkeypatch.setattr(
        experiment.catalogue,
        "load",
        lambda dataset, split, **options: whole(dataset, split, **options).select([] if split == "gallery" else [0, 1]),
    )
    message = fails(train.main, small(), tmp_path)
    assert "gallery" in message


def drawn_copy(small, data_dir, tmp_path):
    """A private copy of the drawn data set that a test may damage; the folder that holds the data set's own."""
    drawn = experiment.draw(small().data, data_dir).parent
    copy = tmp_path / "copy"
    shutil.copytree(drawn, copy, ignore=shutil.ignore_patterns("prepared", "drawn.json"))
    return copy


def test_incomplete_data_set_is_named(small, data_dir, tmp_path, fails):
    copy = drawn_copy(small, data_dir, tmp_path)
    victim = next((copy / "RGBNT201" / "train_171" / "TI").iterdir())
    victim.unlink()
    config = small(data__drawn=False, data__manual_dir=str(copy), data__data_dir=str(tmp_path / "prepared"))
    message = fails(train.main, config, tmp_path / "run")
    assert victim.name in message


@pytest.mark.parametrize("policy", ["error", pytest.param("skip", marks=pytest.mark.slow)])
def test_truncated_image(small, data_dir, tmp_path, fails, caplog, policy):
    copy = drawn_copy(small, data_dir, tmp_path)
    victim = sorted((copy / "RGBNT201" / "train_171" / "NI").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:300])
    config = small(
        data__drawn=False,
        data__manual_dir=str(copy),
        data__data_dir=str(tmp_path / "prepared"),
        data__broken_images=policy,
    )
    if policy == "error":
        assert victim.name in fails(train.main, config, tmp_path / "run")
    else:
        train.main(config, tmp_path / "run")
        assert victim.name in caplog.text


def fit(config, workdir):
    train.main(config, workdir)
