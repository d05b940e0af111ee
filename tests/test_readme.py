"""The Python of the README runs as it is printed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.test_model import made

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow(short=True)
def test_the_lines_of_the_readme_run(tmp_path, monkeypatch, capsys):
    (lines,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    made("htt", tmp_path, workdir="runs/demo")
    rng = np.random.default_rng(0)
    for folder, count in (("gallery", 4), ("queries", 2)):
        for modality in ("rgb", "nir", "tir"):
            (tmp_path / folder / modality).mkdir(parents=True)
            for i in range(count):
                image = Image.fromarray(rng.integers(0, 256, (32, 16, 3), np.uint8))
                image.save(tmp_path / folder / modality / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(lines, "README.md", "exec"), names)
    assert names["features"].shape[0] == 4
    assert names["matches"].order.shape == (2, 4)
    row, score = capsys.readouterr().out.strip().splitlines()[-2:]
    assert "'mAP'" in row
    assert 0 < float(score) <= 1
