"""The tutorial runs as it is written, and what is kept of its outputs is small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "docs" / "tutorial.ipynb"
LARGEST = 300_000


@pytest.fixture(scope="module")
def cells():
    return [cell for cell in json.loads(TUTORIAL.read_text())["cells"] if cell["cell_type"] == "code"]


def test_outputs_are_kept_and_small(cells):
    assert TUTORIAL.stat().st_size < LARGEST
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert any("image/png" in output.get("data", {}) for output in outputs)
    # Nothing of the machine that ran it.
    assert str(ROOT.parent) not in TUTORIAL.read_text()


@pytest.mark.slow
def test_every_cell_runs(cells, tmp_path):
    """Without a kernel: the cells are plain Python, run one after the other in a process of their own."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    script = tmp_path / "tutorial.py"
    script.write_text("\n".join("".join(cell["source"]) for cell in cells))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}", "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("mAP") >= 3
    assert (tmp_path / "runs" / "tutorial" / "matches.csv").is_file()
