"""TVI-LFM's picture from the file to the network's input, against the authors' pipeline."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mmreid_jax.data import transforms
from mmreid_jax.testing import goldens
from mmreid_jax.training import inputs

GOLDENS = [case for case in map(goldens.load, goldens.cases("tvi_lfm")) if case.json.get("case") == "preprocess"]
SHAPES = [
    pytest.param(golden, height, width, id=f"{height}x{width}")
    for golden in GOLDENS
    for height, width in golden.json["config"]["shapes_HW"]
]
IMAGENET = inputs.Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(("golden", "height", "width"), SHAPES)
def test_picture(golden, height, width):
    name, words = f"{height}x{width}", golden.json["slice_rule"]
    picture = goldens.recipe().image(golden.json["seed"], f"image_{name}", (height, width, 3))
    rows, columns = (int(text) for text in re.search(r"(\d+) x (\d+) Lanczos", words).groups())
    kept, coarse = (int(text) for text in re.findall(r"\[::(\d+), ::\1\]", words))
    found = transforms.resize(picture, (rows, columns), "lanczos")
    limits = golden.json["tolerance"]
    assert limits["resized"] == 0
    np.testing.assert_array_equal(found[::kept, ::kept], golden.arrays[f"resized_{name}"])
    expected = np.moveaxis(golden.arrays[f"normalized_{name}"], 0, -1)
    values = np.asarray(inputs.normalize(found, IMAGENET))[::coarse, ::coarse]
    np.testing.assert_allclose(values, expected, rtol=0, atol=limits["normalized"])


@pytest.mark.parametrize("golden", GOLDENS)
def test_nothing_is_left_out(golden):
    names = [f"{height}x{width}" for height, width in golden.json["config"]["shapes_HW"]]
    assert set(golden.arrays) == {f"{kind}_{name}" for kind in ("resized", "normalized") for name in names}
