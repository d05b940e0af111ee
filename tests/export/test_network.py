"""Which function is exported of a model, and its resizing against Pillow's."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mmreid_jax.data import transforms
from mmreid_jax.errors import UserError
from mmreid_jax.export.network import Contract, Network, in_float32, resizing
from tests.export import models


@pytest.mark.parametrize("kind", transforms.INTERPOLATIONS)
@pytest.mark.parametrize(("source", "target"), [((40, 30), (32, 16)), ((16, 8), (37, 21)), ((7, 64), (32, 16))])
def test_resizing_is_pillows(kind, source, target):
    plane = np.random.default_rng(0).uniform(0, 1, source).astype(np.float32)
    rows, columns = (resizing(*pair, kind) for pair in zip(source, target, strict=True))
    expected = np.asarray(Image.fromarray(plane).resize(target[::-1], Image.Resampling[kind.upper()]))
    np.testing.assert_allclose(rows @ plane @ columns.T, expected, atol=2e-6)


def test_a_line_of_one_colour_stays_so():
    for kind in transforms.INTERPOLATIONS:
        np.testing.assert_allclose(resizing(50, 13, kind).sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(resizing(13, 13, "lanczos"), np.eye(13), atol=1e-6)


@pytest.mark.slow(short=True)
def test_inputs_and_features():
    every = Network(models.extractor("htt"))
    assert list(every.inputs) == ["rgb", "nir", "tir"]
    assert (every.feature, every.dimension) == ("after", 96)
    one = Network(models.extractor("htt"), ("tir",), "tir", Contract("uint8", (64, 64), "images"))
    assert one.inputs == {"images": ((3, 64, 64), np.uint8)}
    assert one.dimension == 32
    # What the gallery of the usual comparison is compared by.
    tvi = models.extractor("tvi_lfm")
    assert Network(tvi, ("rgb",)).feature == tvi.comparison.gallery_feature
    assert list(Network(tvi, ("nir",), "fusion").inputs) == ["nir", "tokens_rgb", "tokens_nir"]
    assert list(Network(tvi, ("nir",), "text").inputs) == ["tokens_rgb"]
    assert list(Network(tvi, ("nir",)).inputs) == ["nir"]


def test_bfloat16_is_exported_in_float32():
    extractor = models.extractor("htt", model__dtype="bfloat16")
    assert in_float32(extractor).config.model.dtype == "float32"
    assert extractor.config.model.dtype == "bfloat16"


def test_mistakes_are_a_line():
    htt, agw = models.extractor("htt"), models.extractor("agw")
    for make, message in (
        (lambda: Network(htt, ("uv",)), "sees no uv"),
        (lambda: Network(htt, feature="nothing"), "no feature 'nothing'"),
        (lambda: Network(htt, contract=Contract(only_image="images")), "hands over one image"),
        (lambda: Network(agw), "one modality at a time"),
        (lambda: Network(agw, ("rgb", "nir")), "one modality at a time"),
    ):
        with pytest.raises(UserError, match=message):
            make()
