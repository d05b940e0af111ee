"""The parity tests know no case by heart: they also pass on a second suite, and fail where its numbers are wrong."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import second_suite

HERE = pathlib.Path(__file__).parent
FILES = (
    "test_agw_losses.py",
    "test_agw_metrics.py",
    "test_agw_optimizer.py",
    "test_agw_schedules.py",
    "test_caj_losses.py",
    "test_ddag_layers.py",
    "test_deen_layers.py",
    "test_deen_losses.py",
    "test_hc_losses.py",
    "test_htt_schedules.py",
    "test_mmgl_losses.py",
    "test_rle_transforms.py",
    "test_tvi_lfm_color.py",
    "test_tvi_lfm_losses.py",
)


def run(folder, *files):
    """Exit status and output of the parity tests with another folder of goldens."""
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", "-rN", "--tb=short"]
    environment = {**os.environ, "MMREID_GOLDENS": str(folder)}
    paths = [str(HERE / name) for name in files]
    done = subprocess.run([*command, *paths], cwd=HERE.parents[1], env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    folder = tmp_path_factory.mktemp("goldens")
    second_suite.write(folder)
    return folder


@pytest.mark.slow
def test_a_second_suite(suite):
    status, output = run(suite, *FILES)
    assert status == 0, output[-6000:]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed)", output)}
    assert not counts or counts["passed"] > 60, output[-2000:]


@pytest.mark.slow
def test_wrong_numbers_are_found(tmp_path):
    """One number of every file is changed."""
    second_suite.write(tmp_path)
    for path in tmp_path.glob("*/*.npz"):
        with np.load(path) as stored:
            arrays = dict(stored)
        key = max(name for name, value in arrays.items() if value.dtype.kind == "f")
        arrays[key] = arrays[key] * 1.01 + 0.01
        np.savez(path, **arrays)
    for name in ("test_agw_schedules.py", "test_tvi_lfm_losses.py"):
        status, output = run(tmp_path, name)
        assert status == 1, f"{name}: {output[-2000:]}"
