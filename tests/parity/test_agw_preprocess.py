"""AGW's picture from the file to the network's input, against the authors' pipeline."""

from __future__ import annotations

import re

import numpy as np
import pytest
import vi_kinds

from mmreid_jax.data import transforms
from mmreid_jax.testing import goldens
from mmreid_jax.training import inputs

GOLDENS = vi_kinds.of_kind("agw", "transforms")
CROPS = [
    pytest.param(golden, key, id=key) for golden in GOLDENS for key in golden.arrays if re.match(r"crop_t\d+_l", key)
]
IMAGENET = inputs.Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def resized(golden):
    """The resized picture, and what is stored of a picture [H, W, C] by the words of the file."""
    key, shape = re.search(r"'(\w+)',\[([\d, ]+)\]", golden.json["input"]).groups()
    height, width = re.search(r"resize to (\d+)x(\d+)", golden.json["keys"]["resized"]).groups()
    row, column = re.search(r"every (\d+)th row and (\d+)th column", golden.json["keys"]["resized"]).groups()
    picture = goldens.recipe().image(golden.json["seed"], key, [int(size) for size in shape.split(",")])
    stored = slice(None, None, int(row)), slice(None, None, int(column))
    return transforms.resize(picture, (int(height), int(width)), "lanczos"), stored


@pytest.mark.parametrize("golden", GOLDENS)
class TestFile:
    __test__ = bool(GOLDENS)

    def test_resized(self, golden):
        picture, stored = resized(golden)
        assert golden.json["tolerances"]["resized"] == 0
        np.testing.assert_array_equal(picture[stored], golden.arrays["resized"])
        assert picture.sum(dtype=np.int64) == golden.arrays["resized_sum"]

    def test_tensor(self, golden):
        picture, stored = resized(golden)
        expected = golden.arrays["tensor"].transpose(1, 2, 0)
        for found in (
            inputs.normalize(picture, IMAGENET),
            transforms.normalise(picture, np.array(IMAGENET.mean), np.array(IMAGENET.std)),
        ):
            np.testing.assert_allclose(found[stored], expected, rtol=0, atol=golden.json["tolerances"]["tensor"])

    def test_nothing_is_left_out(self, golden):
        known = {"resized", "resized_sum", "tensor"}
        assert known <= set(golden.arrays)
        assert all(re.fullmatch(r"crop_t\d+_l\d+_f[01]", key) for key in set(golden.arrays) - known)


@pytest.mark.parametrize(("golden", "key"), CROPS)
def test_crop(golden, key):
    picture, stored = resized(golden)
    top, left, mirrored = (int(number) for number in re.fullmatch(r"crop_t(\d+)_l(\d+)_f([01])", key).groups())
    words = next(words for name, words in golden.json["keys"].items() if name.startswith("crop"))
    pad = int(re.search(r"padding by (\d+)", words)[1])
    # We mirror before padding, the reference after the crop: the same picture, cropped from the other side.
    drawn = transforms.Augmentation(bool(mirrored), top, 2 * pad - left if mirrored else left, transforms.NO_RECTANGLE)
    found = inputs.normalize(transforms.apply(picture, drawn, pad), IMAGENET)
    np.testing.assert_allclose(found[stored], golden.arrays[key], rtol=0, atol=golden.json["tolerances"]["tensor"])
