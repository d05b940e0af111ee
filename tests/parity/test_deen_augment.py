"""DEEN's training images as functions of what was drawn, and its erased rectangles, against the authors' code."""

from __future__ import annotations

import importlib
import random
import re

import deen_kinds
import described
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax import experiment
from mmreid_jax.data import transforms
from mmreid_jax.testing import goldens
from mmreid_jax.training import inputs

GOLDENS = deen_kinds.of_kind("augment")
KEYS = [pytest.param(golden, key, id=key) for golden in GOLDENS for key in golden.arrays]


class Drawn:
    """A source of the numbers that a case lists, for a rectangle."""

    def __init__(self, gate, attempts):
        self.numbers = iter([gate, *(number for attempt in attempts for number in attempt)])

    def random(self):
        return next(self.numbers)

    def uniform(self, a, b):
        number = next(self.numbers)
        assert a <= number <= b
        return number

    def randint(self, a, b):
        number = next(self.numbers)
        assert a <= number <= b
        return number


@pytest.mark.parametrize(("golden", "key"), KEYS)
def test_case(golden, key):
    case, (dataset, what) = golden.json, key.split("/")
    data = importlib.import_module(f"configs.deen_{dataset}").get_config().data
    options = experiment.image_options(data)
    assert options.rectangle["area"] == tuple(case["ranges"][dataset])
    expected = golden.arrays[key]
    if what == "rects":
        words = case["keys"]["<set>/rects"]
        calls = int(described.number(words, r"(\d+) calls"))
        height, width = (int(side) for side in re.search(r"\[3,(\d+),(\d+)\]", words).groups())
        python = random.Random(case["seed"])
        found = [
            transforms.erasing_rectangle(python, height, width, probability=data.erasing, **options.rectangle)
            for _ in range(calls)
        ]
        assert found == [transforms.NO_RECTANGLE if row[0] < 0 else tuple(row) for row in expected.tolist()]
        return
    draws, pad = case["draws"][dataset][int(what)], data.padding
    image = goldens.recipe().image(case["seed"], f"im{what}", (*case["image_hw"], 3))
    rectangle = transforms.erasing_rectangle(
        Drawn(draws["erase"], draws["attempts"]), *case["image_hw"], probability=data.erasing, **options.rectangle
    )
    mirrored = draws["flip"] < data.flip
    # We mirror before padding, the reference after the crop: the same picture, cropped from the other side.
    left = 2 * pad - draws["left"] if mirrored else draws["left"]
    grey = draws["grey"] < dict(data.grey_of)["rgb"]
    choices = transforms.Augmentation(mirrored, draws["top"], left, rectangle, grey=grey)
    batch = {
        "images": {"rgb": jnp.asarray(transforms.apply(image, choices, pad)[None])},
        "erase": {"rgb": jnp.asarray([rectangle])},
    }
    found = inputs.prepare(batch, experiment.normalization(data), jax.random.key(0))["images"]["rgb"]
    atol = case["tolerances"]["<set>/<i>"]["atol"]
    np.testing.assert_allclose(found[0], np.moveaxis(expected, 0, -1), rtol=0, atol=atol)
