"""From pixels to the networks' input."""

import jax
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.training import inputs

RECTANGLES = np.array([[1, 2, 3, 4], [0, 0, 0, 0], [5, 0, 3, 2]], np.int32)


def inside(height=8, width=6):
    """Bool [3, height, width]: the pixels of RECTANGLES."""
    mask = np.zeros((3, height, width), bool)
    for i, (top, left, h, w) in enumerate(RECTANGLES):
        mask[i, top : top + h, left : left + w] = True
    return mask


def batch():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3), dtype=np.uint8)
    return {"images": {"rgb": pixels, "nir": pixels}, "erase": {"rgb": RECTANGLES, "nir": RECTANGLES}}


def test_erased_rectangles_hold_noise_of_their_own():
    normalization = inputs.Normalization((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    prepared = inputs.prepare(batch(), normalization, jax.random.key(0))
    plain = np.asarray(inputs.normalize(batch()["images"]["rgb"], normalization))
    mask = inside()
    for modality in ("rgb", "nir"):
        image = np.asarray(prepared["images"][modality])
        np.testing.assert_array_equal(image[~mask], plain[~mask])
        assert np.all(image[mask] != plain[mask])
    rgb, nir = (np.asarray(prepared["images"][modality])[mask] for modality in ("rgb", "nir"))
    assert np.all(rgb != nir)
    assert "erase" not in prepared


def test_erased_rectangles_filled_with_the_mean():
    normalization = inputs.Normalization((0.4, 0.5, 0.6), (0.2, 0.3, 0.25), erased="mean")
    image = np.asarray(inputs.prepare(batch(), normalization, jax.random.key(0))["images"]["nir"])
    plain = np.asarray(inputs.normalize(batch()["images"]["nir"], normalization))
    mask = inside()
    np.testing.assert_array_equal(image[~mask], plain[~mask])
    np.testing.assert_allclose(image[mask], np.broadcast_to([0.4, 0.5, 0.6], image[mask].shape), rtol=1e-6)


def test_unknown_filling():
    with pytest.raises(UserError, match="filled with 'grey'; choose noise or mean"):
        inputs.Normalization(erased="grey")
