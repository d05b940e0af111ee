"""RLE's two transforms and its whole chain as functions of what was drawn, against the authors' code."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.data import enhancement as drawing
from mmreid_jax.data import transforms
from mmreid_jax.testing import goldens
from mmreid_jax.training import enhancement, inputs

GOLDENS = [goldens.load(path) for path in goldens.cases("rle")]
KEYS = [pytest.param(golden, key, id=key) for golden in GOLDENS for key in golden.arrays]
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHARE = 0.5
"""Of images that each transform, the greyscale, the mirror and the erasing change."""


def grey(gate, betas):
    """Weights of the grey, by the arithmetic of the program."""
    chosen = gate <= SHARE
    assert chosen == bool(betas)
    return drawing.grey_weights(np.array([betas if chosen else [0.0, 0.0, 0.0]]))


def scaled(gate, attempts, size):
    """Rectangles and factors of listed attempts; which of them fit is for the program to say."""
    assert (gate <= SHARE) or not attempts
    rectangles, factors = np.zeros((1, max(len(attempts), 1), 4), np.int32), np.ones((1, max(len(attempts), 1), 3))
    for number, (share, aspect, *rest) in enumerate(attempts):
        height, width = drawing.sides(np.array(share), np.array(aspect), size)
        assert bool(drawing.fits(height, width, size)) == bool(rest)
        if rest:
            rectangles[0, number], factors[0, number] = (*rest[:2], height, width), rest[2:]
    return jnp.asarray(rectangles), jnp.asarray(factors, jnp.float32)


def picture(golden, name, dtype):
    """An image in 0 to 1 by its name in the file: [1, H, W, 3]."""
    words = re.fullmatch(
        r"(\w+)(?: \* ([\d.]+))?(?: with rows (\d+)\.\.(\d+), columns (\d+)\.\.(\d+) of channel (\d) .*)?", name
    )
    assert words, name
    pixels = goldens.recipe().image(golden.json["seed"], words[1], (*golden.json["image_hw"], 3))
    image = pixels.astype(dtype) / np.asarray(255, dtype) * np.asarray(words[2] or 1, dtype)
    if words[3]:
        top, bottom, left, right, channel = map(int, words.groups()[2:])
        image[top : bottom + 1, left : right + 1, channel] = 0
    return jnp.asarray(image[None])


def allowed(golden, key):
    limits = golden.json["tolerances"]
    return limits.get(key, limits.get(f"{key.split('_')[0]}_*", {})).get("atol")


def assert_close(golden, key, found, undefined):
    """Everywhere but where the authors' code divides zero by zero; there nothing is lost here."""
    expected = np.moveaxis(golden.arrays[key], 0, -1)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(
        np.asarray(found)[~undefined], expected[~undefined], rtol=0, atol=allowed(golden, key.removesuffix("@64"))
    )


@pytest.mark.parametrize(("golden", "key"), KEYS)
def test_case(golden, key, x64):
    family, which = key.removesuffix("@64").split("/")
    dtype = np.float64 if key.endswith("@64") else np.float32
    draws, size = golden.json["draws"][family], tuple(golden.json["image_hw"])
    if family.startswith("chain_"):
        chain(golden, key, draws[int(which)], size, family.removeprefix("chain_"))
        return
    assert family in ("moderate", "radical", "edges"), f"nothing computes {key}"
    drawn = draws[which] if family == "edges" else draws[int(which)]
    image = picture(golden, drawn.get("image", f"im{which}"), dtype)
    if "moderate" in drawn:
        found = enhancement.moderate(image, jnp.asarray(grey(drawn["moderate"], drawn["betas"]).astype(dtype)))
    else:
        rectangles, factors = scaled(drawn["radical"], drawn["attempts"], size)
        found = jax.jit(enhancement.radical)(image, rectangles, factors)
    assert found.dtype == dtype
    # Stored in place of NaN, where the image is black.
    undefined = np.moveaxis(golden.arrays[key], 0, -1) == -1
    assert not np.asarray(image[0])[undefined].any()
    assert not np.asarray(found[0])[undefined].any()
    assert_close(golden, key, found[0], undefined)


def chain(golden, key, drawn, size, dataset):
    """From the uint8 image to the network's input."""
    words = golden.json["chain"]["order"]
    pad = int(re.search(r"Pad\((\d+)\)", words)[1])
    assert ("grey" in drawn) == (dataset != "sysu")
    pixels = goldens.recipe().image(golden.json["seed"], f"chain{key.split('/')[1]}", (*size, 3))
    mirrored = drawn["flip"] < SHARE
    left = 2 * pad - drawn["left"] if mirrored else drawn["left"]
    choices = transforms.Augmentation(
        mirrored, drawn["top"], left, transforms.NO_RECTANGLE, grey=drawn.get("grey", 1.0) < SHARE
    )
    rectangles, factors = scaled(drawn["radical"], drawn["radical_attempts"], size)
    enhanced = {
        "weights": jnp.asarray(grey(drawn["moderate"], drawn.get("betas"))),
        "rectangles": rectangles,
        "factors": factors,
    }
    fill = [float(number) for number in re.search(r"fill ([\d. ]+)\)", words)[1].split()]
    # Erased before the normalisation, which the numbers go through here.
    normalization = inputs.Normalization(
        *IMAGENET, tuple((value - mean) / std for value, mean, std in zip(fill, *IMAGENET, strict=True))
    )
    batch = {
        "images": {"rgb": jnp.asarray(transforms.apply(pixels, choices, pad)[None])},
        "enhance": {"rgb": enhanced},
        "erase": {"rgb": jnp.asarray([erased(drawn, size)], jnp.int32)},
    }
    found = inputs.prepare(batch, normalization, jax.random.key(0))["images"]["rgb"][0]
    undefined = np.isnan(np.moveaxis(golden.arrays[key], 0, -1))
    listed = golden.json["nan_outputs"].get(key.split("/")[0], [])
    assert undefined.any() == (int(key.split("/")[1]) in listed)
    # What NaN does to the authors' stopping rule is theirs alone: only images without one are compared whole.
    if undefined.any():
        assert np.isfinite(found).all()
        return
    assert_close(golden, key, found, undefined)


def erased(drawn, size):
    """The rectangle of the listed attempts at erasing."""
    for share, aspect, *corner in drawn["erase_attempts"] if drawn["erase"] <= SHARE else ():
        if corner:
            height, width = drawing.sides(np.array(share), np.array(aspect), size)
            return (*corner, height, width)
    return transforms.NO_RECTANGLE


def test_nothing_is_left_out():
    for golden in GOLDENS:
        named = {key.removesuffix("@64") for key in golden.arrays}
        for family, draws in golden.json["draws"].items():
            listed = draws if isinstance(draws, dict) else range(len(draws))
            assert {f"{family}/{which}" for which in listed} <= named
