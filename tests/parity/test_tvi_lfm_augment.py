"""TVI-LFM's erasing and channel operations, alone and one after the other, with the random numbers of its code."""

from __future__ import annotations

import random
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.systems import tvi_lfm
from mmreid_jax.data import pipeline, transforms
from mmreid_jax.testing import goldens
from mmreid_jax.training import channels, inputs

GOLDENS = [case for case in map(goldens.load, goldens.cases("tvi_lfm")) if case.json.get("case") == "augment"]
KEYS = [pytest.param(golden, key, id=key) for golden in GOLDENS for key in golden.arrays]
CHANGED = 0.5
"""Share of visible images that the exchange of channels changes."""


def erased(images, python, probability):
    options = pipeline.ERASING_FORMS["torchreid"]
    chosen = transforms.erasing_rectangle(python, *images.shape[1:3], probability=probability, **options)
    fill = tvi_lfm.tvi_lfm().data.erasing_fill
    return inputs.erase(images, jnp.array([chosen]), jax.random.key(0), fill)


def exchanged(images, python, grey):
    choice = channels.UNCHANGED if python.uniform(0, 1) > CHANGED else python.randint(0, grey)
    return channels.adaptive_grey(images, jnp.array([choice]))


def adapted(images, python, share):
    choice = python.randint(0, 3)
    if choice == channels.GREY and (share == 0 or python.uniform(0, 1) > share):
        choice = channels.UNCHANGED
    return channels.adaptive_grey(images, jnp.array([choice]))


def run(operation, images, python):
    """An operation by the name that the file gives it."""
    name, _, number = operation.partition("_")
    if name == "erase":
        return erased(images, python, float(number))
    if name == "exchange":
        return exchanged(images, python, int(number.removeprefix("gray")))
    if name in ("adap", "adapgray"):
        return adapted(images, python, float(number or 0))
    data = tvi_lfm.tvi_lfm().data
    if operation == "chain_color2":
        return exchanged(erased(images, python, data.erasing), python, 2)
    assert operation == "chain_thermal", f"operation of unknown kind: {operation}"
    return adapted(erased(images, python, dict(data.erasing_of)["nir"]), python, 0.6)


@pytest.mark.parametrize(("golden", "key"), KEYS)
def test_operation(golden, key, x64):
    operation, seed = re.fullmatch(r"(.+)/seed(\d+)", key).groups()
    assert int(seed) in golden.json["config"]["python_seeds"]
    image = goldens.recipe().array(golden.json["seed"], "image", golden.json["config"]["shape_CHW"])
    found = run(operation, jnp.asarray(np.moveaxis(image, 0, -1)[None]), random.Random(int(seed)))
    expected = np.moveaxis(golden.arrays[key], 0, -1)
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=golden.json["tolerance"]["all"])
