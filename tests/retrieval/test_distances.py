"""Distances beyond their values: precision, memory, selection and wrong input."""

from __future__ import annotations

import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import distances


def drawn(dtype=np.float32, queries=11, gallery=7, width=6):
    rng = np.random.default_rng(0)
    return rng.normal(size=(queries, width)).astype(dtype), rng.normal(size=(gallery, width)).astype(dtype)


@pytest.mark.parametrize("kind", distances.KINDS)
def test_blocks_are_the_rows_of_the_whole(kind):
    query, gallery = drawn()
    rows = list(distances.blocks(kind, query, gallery, chunk=4))
    assert max(map(len, rows)) <= 4
    np.testing.assert_allclose(np.concatenate(rows), distances.whole(kind, query, gallery), rtol=1e-5, atol=1e-6)


def test_float64_is_kept(x64):
    query, gallery = drawn(np.float64)
    found = distances.squared_euclidean(query, gallery)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.square(query[:, None] - gallery[None]).sum(-1), rtol=1e-12)


def test_half_precision_features_are_compared_in_float32():
    query, gallery = drawn(np.float16)
    found = distances.squared_euclidean(query, gallery)
    assert found.dtype == distances.l2_normalise(query).dtype == np.float32
    exact = np.square(query.astype(float)[:, None] - gallery.astype(float)[None]).sum(-1)
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)


def test_zero_features_stay_finite():
    query, gallery = np.zeros((2, 3), np.float32), np.eye(3, dtype=np.float32)
    assert not distances.l2_normalise(query).any()
    np.testing.assert_array_equal(distances.cosine(query, gallery), np.ones((2, 3)))


def test_no_queries():
    query, gallery = drawn()
    assert distances.cosine(query[:0], gallery).shape == (0, len(gallery))


@pytest.mark.parametrize("count", [0, 1, 5, 30, 99])
@pytest.mark.parametrize("ties", [False, True])
def test_nearest_is_the_head_of_a_stable_argsort(count, ties):
    apart = np.random.default_rng(count).random((20, 30)).astype(np.float32)
    if ties:
        apart = np.round(apart, 1)
    expected = np.argsort(apart, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(distances.nearest(apart, count), expected)


def test_wrong_input_is_named():
    query, gallery = drawn()
    with pytest.raises(UserError, match=r"\[11, 6\] and \[7, 5\]"):
        distances.cosine(query, gallery[:, :5])
    with pytest.raises(UserError, match="unknown distance 'manhattan'"):
        distances.whole("manhattan", query, gallery)


@pytest.mark.parametrize("kind", distances.KINDS)
def test_an_accelerator_computes_the_same(kind, monkeypatch):
    query, gallery = drawn()
    host = distances.whole(kind, query, gallery)
    monkeypatch.setattr(distances.jax, "default_backend", lambda: "gpu")
    np.testing.assert_allclose(distances.whole(kind, query, gallery, chunk=4), host, rtol=1e-5, atol=1e-6)
    blocks = list(distances.blocks(kind, query, gallery, chunk=4))
    assert list(map(len, blocks)) == [4, 4, 3]
    np.testing.assert_allclose(np.concatenate(blocks), host, rtol=1e-5, atol=1e-6)


def test_memory_of_a_block_is_used_again_where_asked_for():
    query, gallery = drawn()
    whole = distances.squared_euclidean(query, gallery)
    start = 0
    buffers = set()
    for block in distances.blocks("squared_euclidean", query, gallery, chunk=3, reuse=True):
        np.testing.assert_allclose(block, whole[start : start + len(block)], rtol=1e-5, atol=1e-6)
        start += len(block)
        buffers.add(block.ctypes.data)
    assert start == len(query)
    assert len(buffers) == 1
