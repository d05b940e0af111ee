"""Pictures do not depend on matplotlib's backend."""

import os
import subprocess
import sys

import pytest

DRAWS = """
import os
import numpy as np
from mmreid_jax.visualize import curves, style
from mmreid_jax.visualize.canvas import Canvas

{first}
assert os.environ["MPLBACKEND"] == {wanted!r}
import matplotlib
print("drawn", matplotlib.rcParams["backend"] if {wanted!r} == "svg" else "")
"""


FIRSTS = {
    "canvas": "Canvas(20, 30).picture(name='x', alt='', caption='')",
    "curves": "curves.cmc_curves({'a': np.array([0.5, 1.0])})",
    "colours": "style.load_matplotlib().colormaps['turbo']",
}


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "inline", "TkAgg", "nonsense", "svg"])
@pytest.mark.parametrize("first", FIRSTS)
def test_a_notebooks_backend_does_not_matter(backend, first):
    code = DRAWS.format(first=FIRSTS[first], wanted=backend)
    environment = {**os.environ, "MPLBACKEND": backend}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    # Who draws beside gets the backend that was asked for, where there is one.
    assert done.stdout.split() == ["drawn", "svg"][: 2 if backend == "svg" else 1]
