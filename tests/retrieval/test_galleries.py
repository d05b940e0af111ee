"""Galleries drawn in trials: against an obvious loop, on the true file names of the data sets, and what cannot be."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import random
import re
from importlib import resources

import numpy as np
import pytest

from mmreid_jax import datasets
from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import galleries, metrics

SYSU_VISIBLE, SYSU_INFRARED = (0, 1, 3, 4), (2, 5)


@dataclasses.dataclass
class Table:
    """Columns of a pool."""

    identity: np.ndarray
    camera: np.ndarray
    file: np.ndarray

    @property
    def scene(self):
        return np.zeros_like(self.identity)

    def __len__(self):
        return len(self.identity)

    def select(self, rows):
        return Table(self.identity[rows], self.camera[rows], self.file[rows])


def table(folders, seed=None):
    """A table of {(identity, camera from 0): number of images}, shuffled where a seed is given."""
    rows = [
        (name, cam, f"cam{cam + 1}/{name:04d}/{i + 1:04d}.jpg") for (name, cam), n in folders.items() for i in range(n)
    ]
    if seed is not None:
        random.Random(seed).shuffle(rows)
    identity, camera, file = (np.array(column) for column in zip(*rows, strict=True))
    return Table(identity, camera, file)


def manifest(name):
    packed = (resources.files("mmreid_jax") / "datasets" / "manifests" / name).read_bytes()
    return list(csv.DictReader(gzip.decompress(packed).decode().splitlines()))


def sysu():
    """(queries, pool) of SYSU-MM01 with the true numbers of images."""
    test = {int(row["id"]) for row in manifest("sysu_official_gallery_first10.csv.gz")}
    counts = manifest("sysu_counts.csv.gz")
    folders = {(int(r["id"]), int(r["cam"]) - 1): int(next(reversed(r.values()))) for r in counts}
    folders = {key: count for key, count in folders.items() if key[0] in test}
    sides = [
        table({key: n for key, n in folders.items() if key[1] in cameras}) for cameras in (SYSU_INFRARED, SYSU_VISIBLE)
    ]
    return tuple(side.select(galleries.listed(side, range(6))) for side in sides)


def llcm(modality):
    """The test images of one modality of LLCM with their true names."""
    files = [row["file"] for row in manifest("llcm.csv.gz") if row["list"] == f"test_{modality}"]
    columns = [re.search(r"(\d+)_c(\d+)_", file).groups() for file in files]
    identity, camera = np.array(columns, int).T
    return Table(identity, camera - 1, np.array(files))


FOLDERS = {(9, 0): 12, (9, 3): 15, (2, 0): 11, (2, 1): 10, (30, 4): 13, (30, 1): 10, (30, 2): 3}


@pytest.mark.parametrize("shots", [1, 10])
@pytest.mark.parametrize("seed", range(4))
def test_draws_match_the_loop_of_the_references_whatever_the_order_of_the_table(shots, seed):
    """The global generators, one folder after the other, as the authors write it."""
    pool = table(FOLDERS, seed)
    cameras = (4, 0, 1)
    drawn = galleries.Gallery(cameras, shots).positions(pool)
    assert len(drawn) == 10
    for trial, rows in enumerate(drawn):
        random.seed(trial)
        expected = []
        for identity in sorted(set(pool.identity.tolist())):
            for camera in cameras:
                files = sorted(pool.file[(pool.identity == identity) & (pool.camera == camera)].tolist())
                if files:
                    expected += [random.choice(files)] if shots == 1 else random.sample(files, shots)
        assert pool.file[rows].tolist() == expected


def test_a_stream_runs_on_from_trial_to_trial():
    pool = table(FOLDERS)
    long = galleries.Gallery((0, 1), draw="stream", trials=6, discarded=0).positions(pool)
    late = galleries.Gallery((0, 1), draw="stream", trials=4, discarded=2).positions(pool)
    for first, second in zip(long[2:], late, strict=True):
        np.testing.assert_array_equal(first, second)
    assert len({tuple(rows.tolist()) for rows in long}) > 1


def test_folders_come_by_identity_and_in_the_order_of_the_cameras():
    pool = table(FOLDERS, seed=3)
    own = galleries.folders(pool, (4, 1, 0))
    assert [(int(pool.identity[rows[0]]), int(pool.camera[rows[0]])) for rows in own] == [
        (2, 1), (2, 0), (9, 0), (30, 4), (30, 1),
    ]  # fmt: skip
    for rows in own:
        assert pool.file[rows].tolist() == sorted(pool.file[rows].tolist())
        assert len(set(zip(pool.identity[rows].tolist(), pool.camera[rows].tolist(), strict=True))) == 1


@pytest.mark.parametrize("name", [protocol.name for protocol in datasets.get("sysu_mm01").protocols])
def test_sysu_has_the_published_numbers(name):
    query, pool = sysu()
    assert (len(query), len(pool)) == (3803, 6775)
    protocol = datasets.protocol(name)
    drawn = protocol.galleries(pool)
    all_search, shots = "all" in name, 10 if "multi" in name else 1
    assert {len(rows) for rows in drawn} == {(301 if all_search else 112) * shots}
    assert len(drawn) == 10
    for rows in drawn:
        assert len(set(rows.tolist())) == len(rows)
        assert set(pool.camera[rows].tolist()) <= ({0, 1, 3, 4} if all_search else {0, 1})
    scores = metrics.evaluate(np.zeros((len(query), len(drawn[0]))), query, pool.select(drawn[0]), protocol)
    assert scores.num_valid == (3803 if all_search else 2208)


def test_official_galleries_are_the_published_picks():
    _, pool = sysu()
    picks = {
        (row["cam"], row["id"], row["trial"]): row["image_numbers_1based_in_order"].split()
        for row in manifest("sysu_official_gallery_first10.csv.gz")
    }
    for shots, name in ((1, "sysu_indoor_single_official"), (10, "sysu_indoor_multi_official")):
        for trial, rows in enumerate(datasets.protocol(name).galleries(pool)):
            for folder in rows.reshape(-1, shots):
                camera, identity = pool.camera[folder[0]] + 1, pool.identity[folder[0]]
                numbers = [int(file[-8:-4]) for file in pool.file[folder]]
                assert numbers == [int(n) for n in picks[str(camera), str(identity), str(trial)][:shots]]


@pytest.mark.parametrize(
    ("name", "modality", "images", "size"),
    [("llcm_ir_to_vis", "vis", 8680, 484), ("llcm_vis_to_ir", "nir", 7166, 619)],
)
def test_llcm_has_the_published_numbers(name, modality, images, size):
    pool = llcm(modality)
    assert len(pool) == images
    assert {len(rows) for rows in datasets.protocol(name).galleries(pool)} == {size}


def test_without_a_draw_the_pool_is_the_gallery():
    pool = table(FOLDERS)
    (rows,) = datasets.protocol("regdb_visible_to_thermal").galleries(pool)
    assert rows.tolist() == list(range(len(pool)))


@pytest.mark.parametrize(
    ("name", "folders", "said"),
    [
        ("sysu_indoor_single", {(1, 3): 4}, "there is no image of camera 1, 2"),
        ("sysu_all_multi", {(1, 0): 10, (7, 1): 9}, "identity 7, camera 2 has 9; choose a protocol of fewer shots"),
        ("sysu_all_single_official", {(1, 0): 10}, "identity 1, camera 1 has 10 images here, none is drawn"),
    ],
)
def test_what_cannot_be_drawn_is_said(name, folders, said):
    with pytest.raises(UserError, match=said):
        datasets.protocol(name).galleries(table(folders))


def test_official_galleries_need_the_complete_data_set():
    _, pool = sysu()
    protocol = datasets.protocol("sysu_all_single_official")
    first = (pool.identity == 6) & (pool.camera == 0)
    for missing, said in (
        (first, r"identity 6, camera 1 has 0 images here, number \d+ is drawn"),
        (first & (np.cumsum(first) > 12), r"identity 6, camera 1 has 12 images here, number \d+ is drawn"),
    ):
        with pytest.raises(UserError, match=said):
            protocol.galleries(pool.select(np.flatnonzero(~missing)))


def test_every_draw_is_described_with_cameras_as_publications_number_them():
    assert "10 galleries of 1 image of every identity and camera (1, 2)" in (
        datasets.protocol("sysu_indoor_single").describe()
    )
    for protocol in datasets.protocols().values():
        if protocol.gallery:
            assert galleries.DRAWS[protocol.gallery.draw] in protocol.describe()
