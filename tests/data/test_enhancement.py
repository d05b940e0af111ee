"""What is drawn of RLE's enhancements: distributions, positions in the stream, and batches that carry it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mmreid_jax.data import enhancement, pipeline, samplers, transforms
from mmreid_jax.errors import UserError
from tests.data.noise_records import noise_records

SIZE = (384, 144)


def numbers(count=4000, seed=0):
    return np.random.default_rng(seed).random((count, enhancement.NUMBERS))


@pytest.mark.parametrize("parameter", [enhancement.MODERATE_BETA, enhancement.RADICAL_BETA])
def test_beta_distribution(parameter):
    """Against NumPy's own draws, quantile by quantile."""
    rng = np.random.default_rng(1)
    found, other = enhancement.beta(rng.random(200_000), parameter), rng.beta(parameter, parameter, 200_000)
    shares = np.linspace(0.02, 0.98, 25)
    np.testing.assert_allclose(np.quantile(found, shares), np.quantile(other, shares), atol=0.01)


def test_rectangles_are_those_of_the_definition():
    drawn = enhancement.draw(numbers(50), SIZE, 0.0, 1.0)
    assert set(drawn) == {"rectangles", "factors"}
    attempts = numbers(50)[:, 5:].reshape(50, enhancement.ATTEMPTS, 7)
    for rectangles, own in zip(drawn["rectangles"], attempts, strict=True):
        for (top, left, height, width), (u, v, *corner, _, _, _) in zip(rectangles.tolist(), own, strict=True):
            share, aspect = 0.02 + 0.38 * u, 0.3 + (1 / 0.3 - 0.3) * v
            h, w = (round((share * 384 * 144 * ratio) ** 0.5) for ratio in (aspect, 1 / aspect))
            if h >= 384 or w >= 144:
                assert (top, left, height, width) == transforms.NO_RECTANGLE
                continue
            assert (height, width) == (h, w)
            assert (top, left) == (int(corner[0] * (384 - h + 1)), int(corner[1] * (144 - w + 1)))


@pytest.mark.parametrize(("moderate", "radical"), [(0.5, 0.0), (0.0, 0.3), (0.2, 0.9)])
def test_shares_of_images(moderate, radical):
    drawn = enhancement.draw(numbers(), SIZE, moderate, radical)
    assert ("weights" in drawn, "rectangles" in drawn) == (moderate > 0, radical > 0)
    if moderate:
        total = drawn["weights"].sum(axis=1)
        np.testing.assert_allclose(total[total > 0], 1, rtol=1e-6)
        assert (total > 0).mean() == pytest.approx(moderate, abs=0.03)
    if radical:
        there = drawn["rectangles"][..., 2] > 0
        assert there.any(axis=1).mean() == pytest.approx(radical, abs=0.03)
        np.testing.assert_array_equal(drawn["factors"][~there], 1)
        assert ((drawn["factors"] >= 0) & (drawn["factors"] <= 1)).all()


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return noise_records(tmp_path_factory.mktemp("noise") / "images", counts=(4, 6, 4, 5))


def batches(records, options):
    plan = samplers.pk(records.identity, 2, 4, 2, 0)
    with pipeline.train_batches(records, plan, options, seed=3, threads=0) as found:
        return list(found)


OPTIONS = pipeline.ImageOptions(size=(16, 8), padding=3, flip=0.5, second_views=("nir",))


def test_batches_say_what_to_do_and_nothing_else_moves(records):
    plain = batches(records, OPTIONS)
    changed = batches(records, dataclasses.replace(OPTIONS, moderate_enhancement=0.5, radical_enhancement=0.5))
    for one, other in zip(plain, changed, strict=True):
        assert "enhance" not in one
        drawn = other.pop("enhance")
        assert set(drawn) == set(one["images"])
        assert "nir_2" in drawn
        assert {name: x.shape for name, x in drawn["rgb"].items()} == {
            "weights": (8, 3),
            "rectangles": (8, enhancement.ATTEMPTS, 4),
            "factors": (8, enhancement.ATTEMPTS, 3),
        }
        assert not np.array_equal(drawn["nir"]["factors"], drawn["nir_2"]["factors"])
        for name, images in one["images"].items():
            np.testing.assert_array_equal(other["images"][name], images)
            np.testing.assert_array_equal(other["erase"][name], one["erase"][name])


def test_every_step_draws_anew_and_any_start_gives_the_same(records):
    options = dataclasses.replace(OPTIONS, radical_enhancement=0.5)
    first, second = (batch["enhance"]["rgb"]["factors"] for batch in batches(records, options)[:2])
    assert not np.array_equal(first, second)
    plan = samplers.pk(records.identity, 2, 4, 2, 0)
    with pipeline.train_batches(records, plan, options, seed=3, threads=0, start_step=1) as found:
        np.testing.assert_array_equal(next(found)["enhance"]["rgb"]["factors"], second)


def test_shared_augmentation_is_shared(records):
    options = dataclasses.replace(OPTIONS, shared=True, radical_enhancement=0.9)
    for batch in batches(records, options):
        for name in batch["images"]:
            np.testing.assert_array_equal(batch["enhance"][name]["factors"], batch["enhance"]["rgb"]["factors"])


def test_options():
    on = dataclasses.replace(OPTIONS, moderate_enhancement=0.5, radical_enhancement=0.5).without_augmentation()
    assert (on.moderate_enhancement, on.radical_enhancement) == (0, 0)
    with pytest.raises(UserError, match="radical_enhancement is 2"):
        dataclasses.replace(OPTIONS, radical_enhancement=2)
