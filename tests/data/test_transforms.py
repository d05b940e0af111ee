import dataclasses
import random

import numpy as np
import pytest

from mmreid_jax.data import transforms
from mmreid_jax.errors import UserError


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


class TestResize:
    @pytest.mark.parametrize("interpolation", transforms.INTERPOLATIONS)
    def test_shape_and_constant_images(self, interpolation):
        resized = transforms.resize(np.full((50, 31, 3), 77, np.uint8), (16, 24), interpolation)
        np.testing.assert_array_equal(resized, np.full((16, 24, 3), 77, np.uint8))

    def test_bilinear_shrinking_is_antialiased(self):
        stripes = np.zeros((8, 64, 3), np.uint8)
        stripes[:, ::2] = 200
        middle = transforms.resize(stripes, (8, 16), "bilinear")[:, 2:-2]
        np.testing.assert_allclose(middle, 100, atol=2)

    def test_a_view_of_part_of_an_image(self):
        image = noise(20, 60)
        np.testing.assert_array_equal(
            transforms.resize(image[:, 20:40], (10, 10), "bicubic"),
            transforms.resize(image[:, 20:40].copy(), (10, 10), "bicubic"),
        )

    def test_unknown_interpolation(self):
        with pytest.raises(UserError, match="'cubic'; choose one of bilinear, bicubic, lanczos"):
            transforms.resize(noise(4, 4), (8, 8), "cubic")


@pytest.mark.parametrize("padding", [0, 3, 10, 25])
def test_pad_crop_is_zero_padding_and_a_slice(padding):
    image = noise(18, 12)
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    for top in range(2 * padding + 1):
        for left in (0, padding // 2, padding, 2 * padding):
            expected = padded[top : top + 18, left : left + 12]
            np.testing.assert_array_equal(transforms.pad_crop(image, padding, top, left), expected)


def test_apply_mirrors_before_padding():
    image = noise(6, 4)
    crop = transforms.apply(image, transforms.Augmentation(True, 2, 0, transforms.NO_RECTANGLE), 2)
    expected = np.zeros_like(image)
    expected[:, 2:] = image[:, ::-1][:, :2]
    np.testing.assert_array_equal(crop, expected)


class TestErasingRectangle:
    def test_lies_inside_and_keeps_to_area_and_aspect(self):
        rng = random.Random(0)
        for _ in range(500):
            top, left, height, width = transforms.erasing_rectangle(rng, 64, 32, probability=1.0)
            assert 0 < height < 64
            assert 0 < width < 32
            assert 0 <= top <= 64 - height
            assert 0 <= left <= 32 - width
            # Rounding moves a side by at most half a pixel.
            assert (height - 0.5) * (width - 0.5) <= 64 * 32 / 3
            assert (height + 0.5) * (width + 0.5) >= 0.02 * 64 * 32
            assert 0.3 * (width - 0.5) <= height + 0.5
            assert 0.3 * (height - 0.5) <= width + 0.5

    @pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
    def test_probability(self, probability):
        rng = random.Random(1)
        erased = [
            transforms.erasing_rectangle(rng, 64, 32, probability=probability) != transforms.NO_RECTANGLE
            for _ in range(2000)
        ]
        assert abs(np.mean(erased) - probability) < 0.04  # four standard errors

    def test_gives_up_after_ten_attempts(self):
        numbers = [0.0] + [0.999, 1.0] * transforms.ERASING_ATTEMPTS  # large and tall: never smaller than a flat image
        assert transforms.erasing_rectangle(transforms.Numbers(numbers), 8, 64, probability=1.0) == (0, 0, 0, 0)


class TestDraw:
    def test_ranges_of_the_crop(self):
        drawn = [transforms.draw(random.Random(i), (64, 32), padding=3, flip=0.5) for i in range(300)]
        assert {d.top for d in drawn} == {d.left for d in drawn} == set(range(7))
        assert {d.mirrored for d in drawn} == {True, False}

    def test_switching_the_flip_leaves_crop_and_rectangle(self):
        for i in range(50):
            with_flip = transforms.draw(random.Random(i), (64, 32), flip=1.0)
            without = transforms.draw(random.Random(i), (64, 32), flip=0.0)
            assert with_flip.mirrored
            assert not without.mirrored
            assert (with_flip.top, with_flip.left, with_flip.erase) == (without.top, without.left, without.erase)

    def test_numbers_suffice_in_the_worst_case(self):
        numbers = [0.0] * 4 + [0.999, 1.0] * (transforms.ERASING_ATTEMPTS - 1) + [0.0, 0.5] + [0.0, 0.0]
        assert len(numbers) == transforms.NUMBERS_PER_IMAGE
        height, width = transforms.draw(transforms.Numbers(numbers), (8, 64), erasing=1.0).erase[2:]
        assert (height, width) == (3, 3)  # 2 % of the area, square

    def test_numbers_reach_both_ends(self):
        assert transforms.Numbers([0.0]).randint(3, 7) == 3
        assert transforms.Numbers([np.nextafter(1, 0)]).randint(3, 7) == 7


class TestOptions:
    def test_switched_off_they_change_nothing(self):
        image = noise(16, 8)
        for i in range(20):
            options = transforms.draw_options(random.Random(i), (16, 8))
            drawn = transforms.Augmentation(False, 3, 3, transforms.NO_RECTANGLE, **options)
            np.testing.assert_array_equal(transforms.apply(image, drawn, 3), image)

    def test_ranges(self):
        drawn = [
            transforms.draw_options(random.Random(i), (64, 32), random_crop=0.5, brightness=0.2, contrast=0.1)
            for i in range(400)
        ]
        crops = [d["enlarged"] for d in drawn if d["enlarged"] is not None]
        assert abs(len(crops) / 400 - 0.5) < 0.1
        assert {top for top, _ in crops} == set(range(9))  # 64 -> 72 rows, 32 -> 36 columns
        assert {left for _, left in crops} == set(range(5))
        for name, reach in (("brightness", 0.2), ("contrast", 0.1)):
            factors = np.array([d[name] for d in drawn])
            assert np.all(np.abs(factors - 1) <= reach)
            assert np.ptp(factors) > 1.9 * reach
        assert {d["contrast_first"] for d in drawn} == {True, False}

    def test_numbers_suffice(self):
        numbers = transforms.Numbers([0.0] * transforms.NUMBERS_OF_OPTIONS)
        transforms.draw_options(numbers, (64, 32), random_crop=1.0, brightness=0.2, contrast=0.1)
        with pytest.raises(StopIteration):
            numbers.random()

    def test_the_crop_is_a_part_of_the_enlarged_image(self):
        image = noise(64, 32)
        drawn = transforms.Augmentation(True, 0, 0, transforms.NO_RECTANGLE, enlarged=(5, 2))
        expected = transforms.resize(image[:, ::-1], (72, 36), "bilinear")[5:69, 2:34]
        np.testing.assert_array_equal(transforms.apply(image, drawn, 0), expected)

    @pytest.mark.parametrize("factor", [0.0, 0.63, 0.8, 1.0, 1.15, 1.9])
    def test_light_is_pillows(self, factor):
        from PIL import Image, ImageEnhance

        for image in (noise(40, 30), (noise(40, 30, 1) // 3 + 100).astype(np.uint8)):
            picture = Image.fromarray(image)
            expected = np.asarray(ImageEnhance.Brightness(picture).enhance(factor))
            np.testing.assert_array_equal(transforms.brighten(image, factor), expected)
            expected = np.asarray(ImageEnhance.Contrast(picture).enhance(factor))
            np.testing.assert_array_equal(transforms.change_contrast(image, factor), expected)

    def test_the_order_of_light_changes_matters(self):
        image = noise(16, 8)
        base = transforms.Augmentation(False, 0, 0, transforms.NO_RECTANGLE, brightness=1.2, contrast=0.85)
        first = transforms.change_contrast(transforms.brighten(image, 1.2), 0.85)
        np.testing.assert_array_equal(transforms.apply(image, base, 0), first)
        second = transforms.brighten(transforms.change_contrast(image, 0.85), 1.2)
        swapped = dataclasses.replace(base, contrast_first=True)
        np.testing.assert_array_equal(transforms.apply(image, swapped, 0), second)

    def test_torchreids_rectangles_are_larger_and_taller(self):
        rng = random.Random(0)
        options = {"probability": 1.0, **transforms.TORCHREID_ERASING}
        drawn = np.array([transforms.erasing_rectangle(rng, 256, 128, **options)[2:] for _ in range(2000)])
        share = drawn.prod(axis=1) / (256 * 128)
        assert 0.38 < share.max() < 0.41
        # The ratio itself is uniform on [0.3, 1/0.3], before those are refused that do not fit.
        ratio = drawn[:, 0] / drawn[:, 1]
        assert abs(np.median(ratio) - (0.3 + 1 / 0.3) / 2) < 0.15


class TestRandomNumbers:
    def test_a_sample_does_not_depend_on_how_many_there_are(self):
        many, few = transforms.random_numbers(3, 5, 16, 3), transforms.random_numbers(3, 5, 4, 3)
        np.testing.assert_array_equal(many[:4], few)

    def test_another_series_is_another_stream(self):
        one, two = transforms.random_numbers(3, 5, 4, 3), transforms.random_numbers(3, 5, 4, 3, series=2)
        assert not np.intersect1d(one, two).size
        assert transforms.random_numbers(3, 5, 4, 3, 6, 2).shape == (4, 3, 6)

    def test_seed_step_sample_and_stream_all_matter(self):
        numbers = np.concatenate(
            [transforms.random_numbers(seed, step, 4, 3).reshape(12, -1) for seed in (0, 1) for step in (0, 1, 2)]
        )
        assert len(np.unique(numbers)) == numbers.size
        assert abs(numbers.mean() - 0.5) < 0.02


def test_normalise():
    image = np.array([[[0, 255, 51]]], np.uint8)
    np.testing.assert_allclose(transforms.normalise(image), [[[-1, 1, -0.6]]], rtol=1e-6)
    np.testing.assert_allclose(
        transforms.normalise(image, np.array([0.0, 0.5, 0.2]), np.array([1.0, 0.25, 0.5])), [[[0, 2, 0]]], atol=1e-7
    )
