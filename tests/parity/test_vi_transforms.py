"""Resizing, normalising, cropping, erasing and mixing channels against what the authors' pipelines give."""

from __future__ import annotations

import random
import re

import jax.numpy as jnp
import numpy as np
import PIL
import pytest
import vi_kinds

from mmreid_jax.data import transforms
from mmreid_jax.testing import goldens
from mmreid_jax.training import channels, inputs

GOLDENS = vi_kinds.of_kind("vi_protocols", "transforms")
RESIZES = [pytest.param(golden, case, id=case["key"]) for golden in GOLDENS for case in golden.json["resize_cases"]]
OPERATIONS = [pytest.param(golden, name, id=name) for golden in GOLDENS for name in golden.json["aug"]["operations"]]
FILTERS = {"lanczos": "lanczos", "rectscale_bilinear": "bilinear", "bicubic": "bicubic"}


def made(golden, entry):
    """The input that ``[function, key, shape]`` of a file names."""
    function, key, shape = entry
    return getattr(goldens.recipe(), function)(golden.json["seed"], key, shape)


def levels(golden):
    """How far uint8 values may lie apart: other versions of Pillow may differ by a level."""
    return golden.json["tolerance"]["uint8"] + (PIL.__version__ != golden.json["pillow"])


@pytest.mark.parametrize(("golden", "case"), RESIZES)
@pytest.mark.parametrize("name", FILTERS)
def test_resize(golden, case, name):
    width, height = case["out_wh"]
    found = transforms.resize(made(golden, case["image"]), (height, width), FILTERS[name])
    expected = golden.arrays[f"{case['key']}/{name}"].astype(int)
    assert np.abs(found - expected).max() <= levels(golden)


@pytest.mark.parametrize("golden", GOLDENS)
class TestFile:
    __test__ = bool(GOLDENS)

    def test_size_of_training(self, golden):
        case = golden.json["big"]
        width, height = case["resize_wh"]
        found = transforms.resize(made(golden, case["image"]), (height, width), "lanczos")
        (key,) = (key for key in golden.arrays if key.startswith("big/lanczos"))
        every = int(re.search(r"every_(\d+)th", key)[1])
        assert np.abs(found.reshape(-1)[::every] - golden.arrays[key].astype(int)).max() <= levels(golden)
        assert abs(found.sum(dtype=np.int64) - golden.arrays["big/sum"]) <= levels(golden) * found.size

    def test_normalised(self, golden):
        case, expected = golden.json["norm"], golden.arrays["norm/to_tensor_normalise"].transpose(1, 2, 0)
        image = made(golden, case["image"])
        mean, std = case["mean"], case["std"]
        host = transforms.normalise(image, np.array(mean), np.array(std))
        device = inputs.normalize(jnp.asarray(image), inputs.Normalization(tuple(mean), tuple(std)))
        for found in (host, device):
            np.testing.assert_allclose(found, expected, rtol=0, atol=golden.json["tolerance"]["float"])

    def test_padded_and_cropped(self, golden):
        case, stored = golden.json["pad_crop"], golden.arrays
        image, pad = made(golden, case["image"]), case["pad"]
        height, width = case["crop_hw"]
        for top, left in np.ndindex(2 * pad + 1, 2 * pad + 1):
            window = stored[f"pad/pad{pad}"][top : top + height, left : left + width]
            np.testing.assert_array_equal(transforms.pad_crop(image, pad, top, left), window)
        cropped = transforms.pad_crop(image, pad, *case["crop_top_left"])
        np.testing.assert_array_equal(cropped, stored["pad/crop"])
        np.testing.assert_array_equal(cropped[:, ::-1], stored["pad/crop_flip"])

    def test_mirrored_before_padding(self, golden):
        """The references crop first and mirror then; the mirrored crop of the other corner is the same."""
        case = golden.json["pad_crop"]
        top, left = case["crop_top_left"]
        drawn = transforms.Augmentation(True, top, 2 * case["pad"] - left, transforms.NO_RECTANGLE)
        found = transforms.apply(made(golden, case["image"]), drawn, case["pad"])
        np.testing.assert_array_equal(found, golden.arrays["pad/crop_flip"])

    def test_grey(self, golden):
        found = transforms.grey(made(golden, golden.json["pad_crop"]["image"]))
        np.testing.assert_array_equal(found, golden.arrays["pad/grayscale3"])

    def test_nothing_is_left_out(self, golden):
        pad = golden.json["pad_crop"]["pad"]
        known = {f"{case['key']}/{name}" for case in golden.json["resize_cases"] for name in FILTERS}
        known |= {f"aug/{name}" for name in golden.json["aug"]["operations"]} | {"norm/to_tensor_normalise", "big/sum"}
        known |= {f"pad/pad{pad}", "pad/crop", "pad/crop_flip", "pad/grayscale3"}
        assert {key for key in golden.arrays if not key.startswith("big/lanczos")} == known


def numbers(words):
    """``sl 0.02`` -> {"sl": 0.02}: the settings in the words of the file."""
    found = re.findall(r"(gray probability|probability|sl|sh|r1|gray) ([\d.]+)", words)
    return {name: float(value) for name, value in found}


def changed(name, words, images, python):
    """Images [B, H, W, 3], each changed with choices drawn as the references draw them."""
    options, count = numbers(words), len(images)
    if "erase" in name:
        rectangles = [
            transforms.erasing_rectangle(
                python,
                *images.shape[1:3],
                probability=options["probability"],
                area=(options["sl"], options["sh"]),
                aspect=(options["r1"], 1 / options["r1"]),
                log_aspect=False,
            )
            for _ in range(count)
        ]
        fill = re.search(r"fill \(?([\d.,]+)", words)[1].split(",")
        colour = [float(value) for value in (fill * 3 if len(fill) == 1 else fill)]
        return inputs.erase(images, jnp.asarray(rectangles), None, colour)
    choices = []
    for _ in range(count):
        if name.startswith("channel_exchange"):
            kept = python.uniform(0, 1) > options["probability"]
            choices.append(channels.UNCHANGED if kept else python.randint(0, int(options["gray"])))
            continue
        assert name.startswith("channel_adap"), f"operation of unknown kind: {name}"
        choice = python.randint(0, 3)
        if choice == channels.GREY:
            # Only the variant with a grey probability draws again.
            grey = "gray probability" in options and python.uniform(0, 1) <= options["gray probability"]
            choice = channels.GREY if grey else channels.UNCHANGED
        choices.append(choice)
    return channels.adaptive_grey(images, jnp.array(choices))


@pytest.mark.parametrize(("golden", "name"), OPERATIONS)
def test_augmentation(golden, name):
    case = golden.json["aug"]
    image = made(golden, case["input"]).transpose(1, 2, 0)
    images = jnp.asarray(np.repeat(image[None], case["calls"], axis=0))
    found = changed(name, case["operations"][name], images, random.Random(case["python_random_seed"]))
    expected = golden.arrays[f"aug/{name}"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=golden.json["tolerance"]["float"])
