"""Torchreid's random patch: what is drawn, pasted as Pillow does it, and the batches that carry it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from mmreid_jax.data import images, patches, pipeline, samplers, transforms
from mmreid_jax.errors import UserError
from mmreid_jax.training import augment
from tests.data.noise_records import damage, noise_records

SIZE = (64, 32)


def numbers(count=3000, seed=0):
    return np.random.default_rng(seed).random((count, patches.NUMBERS))


def noise(size=SIZE, seed=1):
    return np.random.default_rng(seed).integers(1, 256, (*size, 3), dtype=np.uint8)


def pasted_by_pillow(image, source, piece, degrees):
    """As torchreid does it: crop, mirror, rotate, paste."""
    height, width, top, left, from_top, from_left, mirrored = piece[:7].tolist()
    cut = Image.fromarray(source).crop((from_left, from_top, from_left + width, from_top + height))
    cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else cut
    whole = Image.fromarray(image)
    whole.paste(cut.rotate(degrees), (left, top))
    return np.asarray(whole)


@pytest.mark.parametrize("degrees", range(-patches.LARGEST_ANGLE, patches.LARGEST_ANGLE + 1))
def test_pieces_are_pasted_as_pillow_pastes_them(degrees):
    """Every angle, pieces of every shape, on the host and on the device."""
    rng = np.random.default_rng(degrees % 360)
    sides = np.concatenate([rng.integers(1, SIZE, (40, 2)), [[1, 1], [1, 31], [63, 1], [63, 31], [2, 2]]])
    corners = [(rng.random((len(sides), 2)) * (np.array(SIZE) - sides + 1)).astype(int) for _ in range(2)]
    mirrored = rng.integers(0, 2, (len(sides), 1))
    turns = patches.turning(np.full(len(sides), degrees), sides)
    pieces = np.concatenate([sides, *corners, mirrored, turns], axis=1).astype(np.int32)
    image, source = noise(), noise(seed=2)
    expected = np.stack([pasted_by_pillow(image, source, piece, degrees) for piece in pieces])
    np.testing.assert_array_equal(np.stack([patches.paste(image, source, piece) for piece in pieces]), expected)
    several = (np.broadcast_to(x, (len(pieces), *SIZE, 3)) for x in (image, source))
    np.testing.assert_array_equal(augment.paste(*several, pieces), expected)


def test_nothing_is_pasted_where_nothing_is_drawn():
    _, pieces = patches.draw(numbers(20), SIZE, 0.0)
    image = noise()
    np.testing.assert_array_equal(patches.paste(image, noise(seed=2), pieces[0]), image)
    several = (np.broadcast_to(x, (20, *SIZE, 3)) for x in (image, noise(seed=2)))
    np.testing.assert_array_equal(augment.paste(*several, pieces), np.broadcast_to(image, (20, *SIZE, 3)))


@pytest.mark.parametrize("size", [SIZE, (256, 128), (128, 256)])
def test_pieces_are_those_of_the_definition(size):
    """The first attempt that fits, by a plain loop."""
    drawn = numbers(300)
    which, pieces = patches.draw(drawn, size, 0.5)
    np.testing.assert_array_equal(which, drawn[:, 1])
    for own, piece in zip(drawn.tolist(), pieces.tolist(), strict=True):
        source = transforms.Numbers(own[9:])
        fitting = []
        for _ in range(patches.ATTEMPTS):
            pixels, ratio = source.uniform(0.01, 0.5) * size[0] * size[1], source.uniform(0.1, 10)
            height, width = round((pixels * ratio) ** 0.5), round((pixels / ratio) ** 0.5)
            if height < size[0] and width < size[1]:
                fitting.append((height, width))
        if own[0] > 0.5 or not fitting:
            assert piece == [0] * patches.FIELDS
            continue
        height, width = fitting[0]
        corners = [
            int(own[5 + k] * (limit - side + 1))
            for k, (limit, side) in enumerate(2 * list(zip(size, fitting[0], strict=True)))
        ]
        assert piece[:7] == [height, width, *corners, own[2] > 0.5]
        degrees = int(own[4] * 21) - 10 if own[3] > 0.5 else 0
        assert piece[7:] == patches.turning(np.array(degrees), np.array([height, width])).tolist()


def test_shares():
    _, pieces = patches.draw(numbers(), SIZE, 0.3)
    there = pieces[pieces[:, 0] > 0]
    assert len(there) / len(pieces) == pytest.approx(0.3, abs=0.03)
    assert there[:, 6].mean() == pytest.approx(0.5, abs=0.05)
    # One angle in 21 is none.
    assert (there[:, 8] == 0).mean() == pytest.approx(0.5 + 0.5 / 21, abs=0.05)
    assert ((there[:, :2] + there[:, 2:4] <= SIZE) & (there[:, :2] + there[:, 4:6] <= SIZE)).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (4, 3)])
def test_tiny_images(size):
    which, pieces = patches.draw(numbers(50), size, 1.0)
    assert which.shape == (50,)
    image = noise(size)
    for piece in pieces:
        assert patches.paste(image, image, piece).shape == image.shape


OPTIONS = pipeline.ImageOptions(size=(16, 8), padding=3, flip=0.5, second_views=("nir",))
PATCHED = dataclasses.replace(OPTIONS, random_patch=0.6)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return noise_records(tmp_path_factory.mktemp("noise") / "images", counts=(4, 6, 4, 5))


def batches(records, options, plan=None, start=0):
    plan = plan or samplers.pk(records.identity, 2, 4, 2, 0)
    with pipeline.train_batches(records, plan, options, seed=3, threads=0, start_step=start) as found:
        return list(found)


def resized(records, row, modality):
    sample = images.decode_sample(records, row, records.encoded([row])[0])
    return transforms.resize(sample[modality], (16, 8), "bicubic")


def test_patches_are_of_any_image_of_the_same_modality_and_nothing_else_moves(records):
    names = ("rgb", "nir", "tir", "nir_2")
    for step, (plain, changed) in enumerate(zip(batches(records, OPTIONS), batches(records, PATCHED), strict=True)):
        drawn = transforms.random_numbers(3, step, 8, 4, patches.NUMBERS, 6)
        which, pieces = patches.draw(drawn, (16, 8), 0.6)
        assert (pieces[..., 0] > 0).any()
        for m, name in enumerate(names):
            np.testing.assert_array_equal(changed["erase"][name], plain["erase"][name])
            for i in range(8):
                source = resized(records, int(which[i, m] * len(records)), name.removesuffix("_2"))
                expected = patches.paste(plain["images"][name][i], source, pieces[i, m])
                np.testing.assert_array_equal(changed["images"][name][i], expected)


def test_a_table_of_single_images(records):
    """Visible patches on visible images, infrared ones on infrared images."""
    view = records.views["rgb"]
    modality = np.where(np.arange(len(records)) % 2, "nir", "rgb")
    mixed = dataclasses.replace(records, views={"rgb": view, "nir": view}, modality=modality)
    plan = samplers.cross_modal(mixed.class_index(), modality, mixed.modalities, 2, 4, 1, 0)
    plain, changed = (batches(mixed, options, plan) for options in (OPTIONS, PATCHED))
    for step, (one, other) in enumerate(zip(plain, changed, strict=True)):
        which, pieces = patches.draw(transforms.random_numbers(3, step, 8, 3, patches.NUMBERS, 6), (16, 8), 0.6)
        for m, name in enumerate(("rgb", "nir", "nir_2")):
            rows = np.flatnonzero(modality == name.removesuffix("_2"))
            for i in range(8):
                source = resized(records, rows[int(which[i, m] * len(rows))], "rgb")
                expected = patches.paste(one["images"][name][i], source, pieces[i, m])
                np.testing.assert_array_equal(other["images"][name][i], expected)


def test_any_start_and_any_share_of_the_batch_give_the_same(records):
    whole = batches(records, PATCHED)
    np.testing.assert_array_equal(batches(records, PATCHED, start=1)[0]["images"]["rgb"], whole[1]["images"]["rgb"])
    plan = samplers.pk(records.identity, 2, 4, 2, 0)
    with pipeline.train_batches(records, plan, PATCHED, seed=3, threads=0, shard=(1, 2)) as found:
        np.testing.assert_array_equal(next(found)["images"]["tir"], whole[0]["images"]["tir"][4:])


def test_modalities_can_share_their_patches(records):
    shared = dataclasses.replace(PATCHED, shared=True, random_patch=1.0, padding=0, flip=0.0)
    which, pieces = patches.draw(transforms.random_numbers(3, 0, 8, 1, patches.NUMBERS, 6), (16, 8), 1.0)
    batch = batches(records, shared)[0]
    for i, row in enumerate(batch["index"].tolist()):
        for name in ("rgb", "tir"):
            image, source = (resized(records, k, name) for k in (row, int(which[i, 0] * len(records))))
            np.testing.assert_array_equal(batch["images"][name][i], patches.paste(image, source, pieces[i, 0]))


def test_a_broken_image_lends_no_patch(tmp_path):
    """Another of its identity does."""
    records = noise_records(tmp_path / "images", counts=(4, 4))
    options = dataclasses.replace(PATCHED, second_views=(), random_patch=1.0, broken="skip")
    whole = noise_records(tmp_path / "whole", counts=(4, 4))
    damage(records, 5)
    plan = samplers.sequential(4, 4)
    sound, found = (batches(table, options, plan)[0]["images"] for table in (whole, records))
    which, pieces = patches.draw(transforms.random_numbers(3, 0, 4, 3, patches.NUMBERS, 6), (16, 8), 1.0)
    lent = (which * 8).astype(int)
    assert (lent == 5).any()
    for m, name in enumerate(found):
        for i in range(4):
            assert np.array_equal(found[name][i], sound[name][i]) == (lent[i, m] != 5 or not pieces[i, m, 0])


def test_options():
    assert PATCHED.without_augmentation().random_patch == 0
    with pytest.raises(UserError, match="random_patch is 2"):
        dataclasses.replace(OPTIONS, random_patch=2)
