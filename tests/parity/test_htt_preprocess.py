"""Resizing, padding, cropping, normalising and cutting side-by-side images against the authors' pipeline."""

import re

import numpy as np
import pytest

from mmreid_jax.data import images, transforms
from mmreid_jax.data.records import View
from mmreid_jax.testing import goldens

GOLDENS = [
    golden
    for golden in map(goldens.load, goldens.cases("htt"))
    if any("recipe.image" in case.get("input", {}).get("fn", "") for case in golden.json.get("cases", {}).values())
]
CASES = [pytest.param(golden, name, id=name) for golden in GOLDENS for name in golden.json["cases"]]


@pytest.mark.parametrize(("golden", "name"), CASES)
class TestPreprocess:
    __test__ = bool(CASES)

    def test_pixels(self, golden, name):
        case = golden.json["cases"][name]
        image = goldens.recipe().image(golden.json["seed"], case["input"]["key"], case["input"]["shape"])
        expected = {key.split("/", 1)[1]: value for key, value in golden.arrays.items() if key.startswith(f"{name}/")}
        if "crops_left_right" in case:
            self.cut(case, image, expected)
        elif "crop_top_left" in case:
            self.crop(case, image, expected)
        else:
            resized = transforms.resize(image, tuple(case["size_hw"]), case["interpolation"])
            np.testing.assert_array_equal(resized, expected["resized_uint8"])

    @staticmethod
    def crop(case, image, expected):
        resized = transforms.resize(image, tuple(case["size_hw"]), case["interpolation"])
        cropped = transforms.pad_crop(resized, case["padding"], *case["crop_top_left"])
        np.testing.assert_array_equal(cropped, expected["cropped_uint8"])
        tensor = transforms.normalise(cropped).transpose(2, 0, 1)
        head = expected["tensor_head"]
        np.testing.assert_array_equal(tensor[:, : head.shape[1], : head.shape[2]], head)
        np.testing.assert_allclose(tensor.sum(dtype=np.float64), expected["tensor_sum"], rtol=1e-12)

    @staticmethod
    def cut(case, image, expected):
        """Crops are the columns of the image; stored is what resizing makes of those that do not fit already."""
        columns = case["crops_left_right"]
        views = {str(m): View("image", tuple(pair)) for m, pair in enumerate(columns, start=1)}
        modalities = images.cut({"image": image}, views, "a golden image")
        for m, (left, right) in enumerate(columns, start=1):
            np.testing.assert_array_equal(modalities[str(m)], image[:, left:right])
        size = modalities["1"].shape[:2]
        for key, pixels in expected.items():
            modality, train, rows = re.fullmatch(
                r"modality(\d+)_(train_)?resized_uint8(?:_rows(\d+_\d+))?", key
            ).groups()
            resized = transforms.resize(modalities[modality], size, "bicubic" if train else "bilinear")
            start, stop = map(int, (rows or f"0_{size[0]}").split("_"))
            np.testing.assert_array_equal(resized[start:stop], pixels)
