"""The command that measures a GPU: its table, its time, and that it runs on a CPU."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time

import pytest

from benchmarks import gpu

ROOT = pathlib.Path(__file__).parents[1]
STEP = {"section": "step", "method": "htt", "precision": "bfloat16", "batch": 64}
ROWS = [
    {"section": "machine", "device": "H", "platform": "gpu", "memory_gib": 75.0, "jax": "1", "cores": 4},
    {"section": "peak", "precision": "bfloat16", "size": 8192, "seconds": 0.002, "flops_per_second": 5e14},
    {**STEP, "side": "mmreid_jax", "seconds": 0.1, "images_per_second": 1920.0, "flops": 2e13, "attention": "cudnn"},
    {**STEP, "side": "PyTorch", "seconds": 0.25, "images_per_second": 768.0, "torch": "2"},
    {**STEP, "side": "mmreid_jax", "batch": 512, "note": "does not fit"},
    {"section": "left out", "what": ["one thing", "another"]},
]


def test_table():
    matrix, ours, theirs, large = gpu.table(ROWS)
    assert matrix["note"] == "500.0 TFLOP/s"
    assert ours["share of peak"] == "40 %"  # 2e14 of 5e14 a second
    assert theirs["share of peak"] == "16 %"
    assert (ours["against eager PyTorch"], theirs["against eager PyTorch"]) == ("2.50 x", "")
    assert ours["note"] == "attention cudnn"
    assert (large["note"], large["ms"], large["images/s"]) == ("does not fit", "", "")


def test_page():
    page = gpu.markdown(ROWS, "python benchmarks/gpu.py", 12.0, done=False)
    assert "H, 75.0 GiB for JAX, 4 cores, jax 1, torch 2; 12 s, not finished." in page
    widths = {line.count("|") for line in page.splitlines() if line.startswith("|")}
    assert widths == {len(gpu.COLUMNS) + 1}
    assert page.endswith("- one thing\n- another\n")


def test_sections_share_the_time():
    names = list(gpu.SECTIONS)
    left = 480.0
    for position, name in enumerate(names):
        given = gpu.allowance(name, names[position:], left)
        assert 0 < given <= left
        left -= given
    assert left == pytest.approx(0)
    # What a section leaves goes to the others.
    assert gpu.allowance("htt", names[1:], 480.0) > gpu.allowance("htt", names[1:], 455.0)


def run(code, seconds):
    process = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True)
    return list(gpu.lines_until(process, time.monotonic() + seconds)), process.returncode


def test_lines_of_a_process():
    assert run("print('a'); print('b')", 30) == (["a\n", "b\n"], 0)


def test_a_process_that_takes_too_long_is_killed():
    """Its lines until then are kept."""
    lines, status = run("import time\nprint('a')\ntime.sleep(600)", 3)
    assert (lines, status) == (["a\n"], -9)


@pytest.mark.slow
def test_quick_on_a_cpu(tmp_path):
    """Every section of our side runs; PyTorch's says that it is not there, or runs too."""
    command = [sys.executable, "benchmarks/gpu.py", "--quick", "--minutes", "10", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["done"]
    assert not [row for row in found["rows"] if "failed" in str(row)], (tmp_path / "out.log").read_text()[-2000:]
    steps = {row["method"] for row in found["rows"] if row["section"] == "step" and row["seconds"] > 0}
    assert steps == {"htt", "agw", "mmgl", "tvi_lfm"}
    assert {"peak", "data", "retrieval"} <= {row["section"] for row in found["rows"]}
    assert "| htt | mmreid_jax | bfloat16 |" in (tmp_path / "out.md").read_text()
