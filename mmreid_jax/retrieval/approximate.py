"""Approximate search of large galleries by FAISS or LanceDB, with its recall measured against the exact one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import streamed

INDICES = ("faiss", "lancedb")
MEASURED = 200
"""Queries at most whose matches are compared with the exact ones."""
# Candidates of each wanted match, whose distances are then computed exactly.
_CANDIDATES = 4
# Of candidates that lie in memory at once.
_NUMBERS = 1 << 24
# HNSW: neighbours of a node, and nodes looked at in building and in searching.
_NEIGHBOURS, _WHEN_BUILT, _WHEN_ASKED = 32, 200, 256
# LanceDB builds no index of fewer rows than its clusters need.
_SMALLEST = 1024


def top_k(kind: str, query: np.ndarray, gallery: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, float]:
    """The nearest rows of a gallery by an index, in the order of their exact distances.

    Args:
      kind: one of INDICES.
      query: float [Q, D].
      gallery: float [G, D].
      count: matches of each query.

    Returns:
      (int [Q, K], squared Euclidean distances [Q, K], recall): share of the exact nearest K that were found, over
      MEASURED queries at most.

    Raises:
      UserError: the program is not installed.
    """
    count = min(count, len(gallery))
    query, gallery = (np.ascontiguousarray(each, np.float32) for each in (query, gallery))
    wanted = min(_CANDIDATES * count, len(gallery))
    candidates = _BUILDERS[kind](gallery)(query, wanted)
    # Exact distances of what was found; what an index did not fill is -1 and comes last.
    apart = np.empty(candidates.shape, np.float32)
    block = max(1, _NUMBERS // (wanted * gallery.shape[1]))
    for start in range(0, len(query), block):
        part = slice(start, start + block)
        apart[part] = np.square(query[part, None] - gallery[np.maximum(candidates[part], 0)]).sum(axis=-1)
    apart[candidates < 0] = np.inf
    order = np.argsort(apart, axis=1, kind="stable")[:, :count]
    found, values = (np.take_along_axis(each, order, axis=1) for each in (candidates, apart))
    some = np.linspace(0, len(query) - 1, min(MEASURED, len(query))).astype(int)
    exact, _ = streamed.top_k(query[some], gallery, count)
    hits = [len(set(one) & set(other)) for one, other in zip(found[some].tolist(), exact.tolist(), strict=True)]
    return found, values, float(np.mean(hits)) / count


def _faiss(gallery: np.ndarray) -> Callable[[np.ndarray, int], np.ndarray]:
    """FAISS's HNSW graph."""
    faiss = _module("faiss", "faiss-cpu")
    index = faiss.IndexHNSWFlat(gallery.shape[1], _NEIGHBOURS)
    index.hnsw.efConstruction = _WHEN_BUILT
    index.add(gallery)

    def search(query: np.ndarray, count: int) -> np.ndarray:
        index.hnsw.efSearch = max(_WHEN_ASKED, 2 * count)
        return index.search(query, count)[1]

    return search


def _lancedb(gallery: np.ndarray) -> Callable[[np.ndarray, int], np.ndarray]:
    """A table of LanceDB with an HNSW index of 8 bits; of few rows without."""
    lancedb = _module("lancedb", "lancedb")
    import pyarrow

    vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(gallery.reshape(-1)), gallery.shape[1])
    rows = pyarrow.table({"id": pyarrow.array(np.arange(len(gallery))), "vector": vectors})

    def search(query: np.ndarray, count: int) -> np.ndarray:
        with tempfile.TemporaryDirectory(prefix="mmreid_jax_") as folder:
            table = lancedb.connect(folder).create_table("gallery", rows)
            if len(gallery) >= _SMALLEST:
                table.create_index(metric="l2", vector_column_name="vector", index_type="IVF_HNSW_SQ", num_partitions=1)
            found = np.full((len(query), count), -1, np.int64)
            for row, vector in enumerate(query):
                ids = table.search(vector).limit(count).select(["id", "_distance"]).to_arrow().column("id").to_numpy()
                found[row, : len(ids)] = ids
            return found

    return search


_BUILDERS = {"faiss": _faiss, "lancedb": _lancedb}


def check_installed(kind: str) -> None:
    """Says how to install what an index needs.

    Raises:
      UserError: it is not there.
    """
    _module(kind, {"faiss": "faiss-cpu"}.get(kind, kind))


def _module(name: str, package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"--index {name} needs {package}, which is not installed; pip install {package}") from None
