"""CAJ's channel exchange, adaptive grey and erasing, choice by choice and in seeded sequences."""

from __future__ import annotations

import random
import re

import jax.numpy as jnp
import numpy as np
import pytest
import vi_kinds

from mmreid_jax.data import pipeline, transforms
from mmreid_jax.testing import goldens
from mmreid_jax.training import channels

GOLDENS = vi_kinds.of_kind("caj", "augment")
FIXED = [pytest.param(golden, key, id=key) for golden in GOLDENS for key in golden.arrays if "seeded" not in key]
# CAJ's grey probability and erasing.
HALF = 0.5


def nhwc(array):
    return np.moveaxis(array, -3, -1)


def assert_close(golden, found, key):
    np.testing.assert_allclose(found, nhwc(golden.arrays[key]), rtol=0, atol=golden.json["tolerances"]["all"])


def shape_of(golden):
    """Shape [C, H, W] of the input, and the number of images of the seeded sequences."""
    words = golden.json["input"]
    shape, count = re.search(r"'image',\[([\d, ]+)\]", words)[1], re.search(r"i<(\d+)", words)[1]
    return [int(size) for size in shape.split(",")], int(count)


@pytest.mark.parametrize(("golden", "key"), FIXED)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fixed_choice(golden, key, dtype, x64):
    image = goldens.recipe().array(golden.json["seed"], "image", shape_of(golden)[0])
    images = jnp.asarray(nhwc(image)[None], dtype)
    kind, choice = key.split("/")
    number, _, what = choice.partition("_")
    if kind == "exchange":
        found = channels.exchange(images, jnp.array([int(number)]))
    else:
        assert kind in ("adap", "adapgray"), f"operation of unknown kind: {key}"
        # `ChannelAdap` has no grey: its 3 keeps the image.
        kept = int(number) == 3 and what != "gray"
        found = channels.adaptive_grey(images, jnp.array([channels.UNCHANGED if kept else int(number)]))
    assert found.dtype == dtype
    assert_close(golden, found[0], key)


@pytest.mark.parametrize("golden", GOLDENS)
class TestSeeded:
    __test__ = bool(GOLDENS)

    def images(self, golden):
        shape, count = shape_of(golden)
        arrays = [goldens.recipe().array(golden.json["seed"], f"im{i}", shape) for i in range(count)]
        return jnp.asarray(nhwc(np.stack(arrays)))

    def test_exchange(self, golden):
        images, python = self.images(golden), random.Random(golden.json["seed"])
        choice = jnp.array([python.randint(0, 2) for _ in images])
        assert_close(golden, channels.exchange(images, choice), "seeded/exchange")

    def test_adaptive_grey(self, golden):
        images, python = self.images(golden), random.Random(golden.json["seed"])
        choices = []
        for _ in images:
            choice = python.randint(0, 3)
            if choice == channels.GREY and python.uniform(0, 1) > HALF:
                choice = channels.UNCHANGED
            choices.append(choice)
        assert_close(golden, channels.adaptive_grey(images, jnp.array(choices)), "seeded/adapgray")

    def test_rectangles(self, golden):
        words = golden.json["keys"]["seeded/erasing_rect"]
        calls, probability, height, width = re.search(r"(\d+) calls with p=([\d.]+) on (\d+)x(\d+)", words).groups()
        python = random.Random(golden.json["seed"])
        options = pipeline.ERASING_FORMS["torchreid"]
        found = [
            transforms.erasing_rectangle(python, int(height), int(width), probability=float(probability), **options)
            for _ in range(int(calls))
        ]
        expected = [
            transforms.NO_RECTANGLE if row[0] < 0 else tuple(row)
            for row in golden.arrays["seeded/erasing_rect"].tolist()
        ]
        assert found == expected

    def test_nothing_is_left_out(self, golden):
        seeded = {key for key in golden.arrays if key.startswith("seeded/")}
        assert seeded == {"seeded/exchange", "seeded/adapgray", "seeded/erasing_rect"}
