"""RLE's enhancements on the device against loops over rectangles and channels, and what a black channel does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.data import enhancement as drawing
from mmreid_jax.training import enhancement, inputs

SIZE = (48, 18)


def drawn(count, seed=0, moderate=0.5, radical=0.7):
    numbers = np.random.default_rng(seed).random((count, drawing.NUMBERS))
    return drawing.draw(numbers, SIZE, moderate, radical)


def naive(image, rectangles, factors):
    """One rectangle after the other: the image, and how many were scaled."""
    image, scaled, count = image.copy(), np.ones_like(image), 0
    for (top, left, height, width), own in zip(rectangles, factors, strict=True):
        if not height:
            continue
        count += 1
        for channel in range(3):
            part = np.s_[top : top + height, left : left + width, channel]
            if brightest := image[part].max():
                image[part] = image[part] * (1 / brightest) * own[channel]
                scaled[part] = scaled[part] * (1 / brightest) * own[channel]
        if scaled.min() < 0.1:
            break
    return image, count


def test_radical_against_loops(x64):
    choices = drawn(60)
    images = np.random.default_rng(1).random((60, *SIZE, 3)) ** 3
    images[::4, 10:30, :, 1] = 0
    found = jax.jit(enhancement.radical)(images, choices["rectangles"], choices["factors"])
    rows = zip(images, choices["rectangles"], choices["factors"].astype(np.float64), strict=True)
    counts = []
    for image, result in zip(rows, np.asarray(found), strict=True):
        expected, count = naive(*image)
        counts.append(count)
        np.testing.assert_allclose(result, expected, rtol=1e-12)
    assert {0, 1, 2} < set(counts)


def test_as_many_rectangles_as_were_measured_of_the_original(x64):
    """On 300 images uniform in 0 to 0.5: two on average, one in 42 %; within three standard errors of that."""
    choices = drawn(2000, seed=4, radical=1.0)
    images = 0.5 * np.random.default_rng(2).random((2000, *SIZE, 3))
    counts = [
        naive(*row)[1] for row in zip(images, choices["rectangles"], choices["factors"].astype(float), strict=True)
    ]
    assert np.mean(counts) == pytest.approx(2.0, abs=0.15)
    assert np.mean(np.array(counts) == 1) == pytest.approx(0.42, abs=3 * (0.42 * 0.58 / 300) ** 0.5)
    assert max(counts) < drawing.ATTEMPTS / 2


def test_moderate_is_a_weighted_grey(x64):
    choices, images = drawn(40), np.random.default_rng(3).random((40, *SIZE, 3))
    found = np.asarray(enhancement.moderate(jnp.asarray(images), choices["weights"]))
    for image, weights, result in zip(images, choices["weights"].astype(float), found, strict=True):
        expected = np.repeat((image @ weights)[..., None], 3, axis=2) if weights.any() else image
        np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_black_images_stay_black():
    """Where the original divides by zero."""
    choices = drawn(8, radical=1.0)
    found = enhancement.radical(jnp.zeros((8, *SIZE, 3)), choices["rectangles"], choices["factors"])
    np.testing.assert_array_equal(found, 0)


def test_before_the_normalisation_and_before_erasing():
    choices = {name: jnp.asarray(value) for name, value in drawn(4, radical=1.0).items()}
    pixels = np.random.default_rng(5).integers(0, 256, (4, *SIZE, 3), dtype=np.uint8)
    normalization = inputs.Normalization((0.4, 0.5, 0.6), (0.2, 0.3, 0.1), (7.0, 8.0, 9.0))
    batch = {"images": {"rgb": pixels}, "enhance": {"rgb": choices}, "erase": {"rgb": jnp.array([[0, 0, 5, 4]] * 4)}}
    prepared = inputs.prepare(batch, normalization, jax.random.key(0))
    assert "enhance" not in prepared
    expected = (enhancement.enhance(pixels.astype(np.float32) / 255, choices) - jnp.array([0.4, 0.5, 0.6])) / jnp.array(
        [0.2, 0.3, 0.1]
    )
    found = np.asarray(prepared["images"]["rgb"])
    np.testing.assert_array_equal(found[:, :5, :4], np.broadcast_to([7.0, 8.0, 9.0], (4, 5, 4, 3)))
    np.testing.assert_allclose(found[:, 5:], expected[:, 5:], rtol=1e-6, atol=1e-6)


def test_within():
    inside = enhancement.within(jnp.array([[1, 2, 3, 4], [0, 0, 0, 5]]), 6, 8)
    expected = np.zeros((2, 6, 8), bool)
    expected[0, 1:4, 2:6] = True
    np.testing.assert_array_equal(inside, expected)
