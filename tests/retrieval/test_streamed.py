"""Searches of a gallery that streams by against brute force: ties, devices, memory maps, interruptions, processes."""

from __future__ import annotations

import pathlib

import jax
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import distances, streamed
from tests.processes import run_two

ROOT = pathlib.Path(__file__).parents[2]
WIDTH = 6


def drawn(queries=5, gallery=700, dtype=np.float32):
    """Small whole numbers: distances are exact in any order of summation, and many are equal."""
    rng = np.random.default_rng(0)
    return tuple(rng.integers(-2, 3, (size, WIDTH)).astype(dtype) for size in (queries, gallery))


def by_sorting(query, gallery, count):
    """The definition."""
    apart = np.square(query[:, None].astype(float) - gallery[None]).sum(-1)
    order = np.argsort(apart, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(apart, order, axis=1)


def check(found, query, gallery, count):
    for one, other in zip(found, by_sorting(query, gallery, count), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found[0].dtype == np.int64


@pytest.fixture
def small(monkeypatch):
    """Tiles, groups and blocks of queries so small that all paths are taken."""
    monkeypatch.setattr(streamed, "_TILE", 64)
    monkeypatch.setattr(streamed, "_GROUP", 4)
    monkeypatch.setattr(streamed, "_QUERIES", 3)


@pytest.fixture(params=[1, 8])
def devices(request, monkeypatch):
    """A machine of so many devices."""
    every = jax.local_devices()
    monkeypatch.setattr(streamed.jax, "local_devices", lambda: every[: request.param])


# 128 rows of a chunk are two tiles.
CHUNK = 128 * WIDTH * 4


@pytest.mark.parametrize("count", [1, 7])
def test_the_nearest_are_the_head_of_a_stable_argsort(count, small, devices):
    query, gallery = drawn()
    check(streamed.top_k(query, gallery, count, chunk=CHUNK), query, gallery, count)


def test_a_gallery_smaller_than_asked_for(devices):
    query, gallery = drawn(gallery=9)
    check(streamed.top_k(query, gallery, 20), query, gallery, 9)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_memory_map_is_a_gallery(dtype, small, tmp_path):
    query, gallery = drawn(dtype=dtype)
    np.save(tmp_path / "features.npy", gallery)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    check(streamed.top_k(query, mapped, 5, chunk=CHUNK), query, gallery, 5)
    check(streamed.top_k(query, mapped[11:600], 5, chunk=CHUNK), query, gallery[11:600], 5)


@pytest.mark.parametrize("kind", distances.KINDS)
def test_every_distance(kind, small):
    rng = np.random.default_rng(1)
    query, gallery = (rng.normal(size=(size, WIDTH)).astype(np.float32) for size in (4, 300))
    rows, apart = streamed.top_k(query, gallery, 6, kind=kind, chunk=CHUNK)
    whole = distances.whole(kind, query, gallery)
    np.testing.assert_array_equal(rows, distances.nearest(whole, 6))
    np.testing.assert_allclose(apart, np.take_along_axis(whole, rows, axis=1), rtol=1e-5, atol=1e-5)


def interrupted(query, gallery, progress, monkeypatch, after):
    """A search that dies when it has read `after` chunks."""
    read, starts = streamed._Search._read, []

    def dying(self, start, last):
        if len(starts) == after:
            raise KeyboardInterrupt
        starts.append(start)
        return read(self, start, last)

    with monkeypatch.context() as patch:
        patch.setattr(streamed._Search, "_read", dying)
        with pytest.raises(KeyboardInterrupt):
            streamed.top_k(query, gallery, 5, chunk=CHUNK, progress=progress)


def test_an_interrupted_search_goes_on_where_it_stopped(small, tmp_path, monkeypatch):
    one = jax.local_devices()[:1]
    monkeypatch.setattr(streamed.jax, "local_devices", lambda: one)
    query, gallery = drawn()
    progress = streamed.Progress(tmp_path / "search.progress", every=2)
    interrupted(query, gallery, progress, monkeypatch, after=5)
    read, starts = streamed._Search._read, []
    monkeypatch.setattr(
        streamed._Search, "_read", lambda self, start, last: starts.append(start) or read(self, start, last)
    )
    check(streamed.top_k(query, gallery, 5, chunk=CHUNK, progress=progress), query, gallery, 5)
    assert starts == [512, 640]  # the fifth chunk was not written any more
    with pytest.raises(UserError, match="progress of another search"):
        streamed.top_k(query + 1, gallery, 5, chunk=CHUNK, progress=progress)
    with np.load(progress.file) as stored:
        state = dict(stored)
    for changes in (
        {"start": np.array("x")},
        {"rows": state["rows"][:, :, :1]},
        {"values": state["values"].astype("U5")},
    ):
        np.savez(tmp_path / "other.npz", **{**state, **changes})
        (tmp_path / "other.npz").rename(progress.file)
        with pytest.raises(UserError, match="delete it"):
            streamed.top_k(query, gallery, 5, chunk=CHUNK, progress=progress)
    progress.done()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "search.progress").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is not the progress of a search"):
        streamed.top_k(query, gallery, 5, chunk=CHUNK, progress=progress)


def test_parts_are_merged_by_distance_then_row():
    values = np.array([[[1.0, 2.0, np.inf]], [[1.0, 1.0, 3.0]]])
    rows = np.array([[[7, 9, -1]], [[3, 8, 4]]])
    found = streamed.merged(values, rows, 4)
    assert found[0].tolist() == [[3, 7, 8, 9]]
    assert found[1].tolist() == [[1, 1, 1, 2]]


def test_bad_features_are_named(small):
    query, gallery = drawn()
    gallery[300, 2] = np.nan
    with pytest.raises(UserError, match="features of gallery image 300 are not finite"):
        streamed.top_k(query, gallery, 5, chunk=CHUNK)
    with pytest.raises(UserError, match=r"they are \[5, 6\] and \[700, 5\]"):
        streamed.top_k(query, gallery[:, :5], 5)
    names = [f"q{i}.png" for i in range(5)], np.array([f"g{i}.png" for i in range(700)])
    with pytest.raises(UserError, match=r"features of gallery image g300\.png are not finite"):
        streamed.top_k(query, gallery, 5, chunk=CHUNK, names=names)
    gallery[5:9, 1] = 1e30  # whose square is not finite
    with pytest.raises(UserError, match=r"gallery image g5\.png, g6\.png, g7\.png and of 1 more are not finite"):
        streamed.top_k(query, gallery, 5, chunk=CHUNK, names=names)
    query[3, 0] = np.inf
    with pytest.raises(UserError, match="query 3 are not finite"):
        streamed.top_k(query, gallery, 5)
    with pytest.raises(UserError, match=r"query q3\.png are not finite"):
        streamed.top_k(query, gallery, 5, names=names)
    assert streamed.top_k(query[:0], gallery, 5)[0].shape == (0, 5)
    assert streamed.top_k(query, gallery[:0], 5)[0].shape == (5, 0)


PROGRAM = """
import sys
from mmreid_jax.training import distributed
distributed.start()
import jax, numpy as np
assert jax.process_count() == 2 and len(jax.local_devices()) == 2
from mmreid_jax.retrieval import streamed
from tests.retrieval.test_streamed import CHUNK, check, drawn
streamed._TILE, streamed._GROUP, streamed._QUERIES = 64, 4, 3
query, gallery = drawn()
mapped = np.load(sys.argv[1], mmap_mode="r")
check(streamed.top_k(query, mapped, 7, chunk=CHUNK), query, gallery, 7)
print("checked")
"""


@pytest.mark.slow
def test_two_processes_search_a_slice_each(tmp_path):
    np.save(tmp_path / "features.npy", drawn()[1])
    for printed in run_two(PROGRAM, tmp_path / "features.npy"):
        assert printed.splitlines()[-1:] == ["checked"]
