"""Approximate search against the exact one, and the one-liners of the page."""

from __future__ import annotations

import pathlib
import re
import sys

import numpy as np
import pytest

from mmreid_jax.commands import search
from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import approximate, streamed, vectors

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "vector_search.md"


def clustered(count, seed, width=16):
    """Rows of length one around common centers."""
    centers = np.random.default_rng(0).normal(size=(40, width))
    rng = np.random.default_rng(seed)
    rows = centers[rng.integers(0, 40, count)] + 0.3 * rng.normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.vector_search
@pytest.mark.parametrize("kind", approximate.INDICES)
@pytest.mark.parametrize("size", [3, 300, 3000])
def test_matches_are_nearly_the_exact_ones(kind, size):
    query, gallery = clustered(50, 1), clustered(size, 2)
    found, values, recall = approximate.top_k(kind, query, gallery, 5)
    exact, distances = streamed.top_k(query, gallery, 5)
    assert found.shape == exact.shape
    same = np.mean([len(set(one) & set(other)) for one, other in zip(found, exact, strict=True)]) / found.shape[1]
    assert recall == pytest.approx(same)
    assert recall > (0.95 if size > 300 else 0.999)
    # Distances are exact ones, of whatever was found.
    np.testing.assert_allclose(values, np.square(query[:, None] - gallery[found]).sum(-1), atol=1e-6)
    assert (np.diff(values, axis=1) >= 0).all()
    assert (values >= distances - 1e-5).all()


@pytest.mark.slow(short=True)
def test_distances_do_not_depend_on_how_many_are_computed_at_once(monkeypatch):
    query, gallery = clustered(50, 1), clustered(300, 2)
    nearest = lambda gallery: lambda query, count: streamed.top_k(query, gallery, count)[0]  # noqa: E731
    monkeypatch.setitem(approximate._BUILDERS, "faiss", nearest)
    whole = approximate.top_k("faiss", query, gallery, 5)
    monkeypatch.setattr(approximate, "_NUMBERS", 7 * 20 * 16)
    parts = approximate.top_k("faiss", query, gallery, 5)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(whole[0], streamed.top_k(query, gallery, 5)[0])


@pytest.mark.vector_search
def test_a_search_by_an_index_finds_what_the_exact_one_finds(tmp_path, capsys):
    for name, count, seed in (("query", 20, 1), ("gallery", 200, 2)):
        files = np.array([f"{name}{i}.jpg" for i in range(count)])
        vectors.write(tmp_path / f"{name}.parquet", clustered(count, seed), files, None, "rgb", {})
    sides = ["--query", str(tmp_path / "query.parquet"), "--gallery", str(tmp_path / "gallery.parquet")]
    search.main([*sides, "--out", str(tmp_path / "exact")])
    for kind in approximate.INDICES:
        search.main([*sides, "--out", str(tmp_path / kind), "--index", kind])
        assert f"{kind} found 100.0% of the exact 11 nearest" in capsys.readouterr().out
        one, other = (
            [line.split(",")[:3] for line in (tmp_path / folder / "matches.csv").read_text().splitlines()]
            for folder in ("exact", kind)
        )
        assert one == other


@pytest.mark.vector_search
@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
def test_the_one_liners_of_the_page_find_the_nearest(block, tmp_path, monkeypatch):
    sides = {"album": clustered(30, 1), "wanted": clustered(4, 2)}
    for name, rows in sides.items():
        files = np.array([f"{i}.jpg" for i in range(len(rows))])
        vectors.write(tmp_path / f"{name}.parquet", rows, files, None, "rgb", {})
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(block, names)
    expected = streamed.top_k(sides["wanted"], sides["album"], 3)[0]
    if "found" in names:
        assert [point.id for point in names["found"]] == expected[0].tolist()
    elif "cosine" in names:
        np.testing.assert_array_equal(names["rows"], expected)
    else:
        assert names["rows"].to_pylist() == expected[0].tolist()


def test_what_is_not_installed_is_named(monkeypatch):
    for kind, package in (("faiss", "faiss-cpu"), ("lancedb", "lancedb")):
        monkeypatch.setitem(sys.modules, kind, None)
        with pytest.raises(UserError, match=f"pip install {package}"):
            search.main(["--query", "a.npz", "--gallery", "b.npz", "--index", kind])
