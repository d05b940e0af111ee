"""Image transforms on the device against those of the host, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.data import transforms
from mmreid_jax.training import augment


def noise(count, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def enlarging(size):
    names = ("rows", "columns")
    return {name: transforms.enlarging_taps(length) for name, length in zip(names, size, strict=True)}


@pytest.mark.parametrize("size", [(32, 16), (37, 19), (4, 3), (256, 128), (288, 144)])
def test_enlarging_is_pillows(size):
    """Noise is the hardest image there is; extreme values would show an overflow."""
    tall, wide = transforms.enlarged_size(size)
    images = np.concatenate([noise(3, size), 255 * (noise(2, size, 1) > 127).astype(np.uint8)])
    corner = np.array([(0, 0), (tall - size[0], wide - size[1]), (0, wide - size[1]), (tall - size[0], 0), (0, 0)])
    found = jax.jit(augment.enlarge)(images, corner.astype(np.int32), enlarging(size))
    for image, (top, left), cut in zip(images, corner, np.asarray(found), strict=True):
        whole = transforms.resize(image, (tall, wide), "bilinear")
        np.testing.assert_array_equal(cut, whole[top : top + size[0], left : left + size[1]])


def test_light_is_pillows():
    """Every value of every image of many, with factors that leave the range on both sides, in both orders."""
    rng = np.random.default_rng(2)
    images = noise(256, (8, 4), 3) // rng.integers(1, 9, (256, 1, 1, 1), dtype=np.uint8)
    brightness, contrast = rng.uniform(0, 2, (2, len(images)))
    brightness[:3], contrast[1:4] = 1, 1
    first = rng.random(len(images)) < 0.5
    found = jax.jit(augment.change_light)(
        images, transforms.brightness_values(brightness), transforms.contrast_products(contrast), first
    )
    for i, image in enumerate(images):
        drawn = transforms.Augmentation(False, 0, 0, (0, 0, 0, 0), None, brightness[i], contrast[i], bool(first[i]))
        np.testing.assert_array_equal(np.asarray(found)[i], transforms.apply(image, drawn, 0))


def test_mean_grey_is_rounded_half_up():
    """Images whose luma is exactly between two whole numbers, and all others, become wholly grey at factor 0."""
    images = np.repeat(np.array([[0, 1], [7, 8], [254, 255], [3, 3]], np.uint8)[:, None, :, None], 3, axis=3)
    nothing = transforms.contrast_products(np.zeros(4))
    found = augment.change_light(
        jnp.asarray(images), transforms.brightness_values(np.ones(4)), nothing, np.zeros(4, bool)
    )
    for image, changed in zip(images, np.asarray(found), strict=True):
        np.testing.assert_array_equal(changed, transforms.change_contrast(image, 0.0))


@pytest.mark.parametrize("by", [(0, 0), (3, -2), (-8, 6), (9, 0), (0, -7), (-20, 20)])
def test_shift_is_padding_and_cropping(by):
    (image,) = noise(1, (8, 6))
    found = augment.shift(jnp.asarray(image[None]), jnp.array([by]))
    np.testing.assert_array_equal(np.asarray(found)[0], transforms.pad_crop(image, 30, 30 - by[0], 30 - by[1]))


def test_a_batch_with_images_passes():
    batch = {"images": {"rgb": noise(1, (2, 2))}, "identity": np.zeros(1)}
    assert augment.gather(batch, None) == batch


def test_images_that_are_not_there():
    with pytest.raises(ValueError, match="needs these images"):
        augment.gather({"augment": {"rgb": {"row": np.zeros(1, np.int32)}}}, None)
