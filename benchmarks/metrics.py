"""Distances and scores against the plain numpy form, in turn in one run.

    python benchmarks/metrics.py

The plain form is what the field's repositories do: one matrix product, an argsort of the whole matrix, a loop over the
queries with boolean masks. Both must give the same scores.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmreid_jax.retrieval import metrics, protocols, rerank

SIZES = ((836, 836, 30, 2304), (8575, 1715, 50, 2304))
REPEATS = 3


def plain(query: np.ndarray, gallery: np.ndarray, asked: metrics.Labels, given: metrics.Labels) -> tuple[float, float]:
    """mAP and rank-1 by a full argsort and a loop over queries."""
    squares = np.square(query).sum(1)[:, None] + np.square(gallery).sum(1)[None]
    apart = squares - 2 * query @ gallery.T
    order = np.argsort(apart, axis=1)
    right = given.identity[order] == asked.identity[:, None]
    precisions, first = [], []
    for row in range(len(query)):
        kept = ~(right[row] & (given.camera[order[row]] == asked.camera[row]))
        hits = right[row][kept]
        if hits.any():
            total = hits.cumsum()
            precisions.append((total / np.arange(1, len(hits) + 1) * hits).sum() / hits.sum())
            first.append(hits[0])
    return float(np.mean(precisions)), float(np.mean(first))


def ours(query: np.ndarray, gallery: np.ndarray, asked: metrics.Labels, given: metrics.Labels) -> tuple[float, float]:
    """mAP and rank-1 by the library."""
    protocol = protocols.Protocol("rgbnt", normalise=False)
    scores = metrics.evaluate(protocol.distances(query, gallery), asked, given, protocol)
    return scores.mAP, scores.rank(1)


def seconds(function: Callable[..., object], *arguments: object) -> tuple[float, object]:
    """Processor seconds of one call, and its result."""
    begun = time.process_time()
    result = function(*arguments)
    return time.process_time() - begun, result


def main() -> None:
    """The command."""
    rng = np.random.default_rng(0)
    print("| gallery x query | plain numpy (cpu-s) | mmreid_jax (cpu-s) | ratio | difference in mAP |")
    print("|---|---|---|---|---|")
    for size, asked, people, width in SIZES:
        labels = [
            metrics.Labels(rng.integers(0, people, n), rng.integers(0, 4, n), np.zeros(n, int)) for n in (asked, size)
        ]
        centres = rng.normal(size=(people, width))
        query, gallery = (
            (centres[table.identity] + 5 * rng.normal(size=(len(table.identity), width))).astype(np.float32)
            for table in labels
        )
        best = {"plain": np.inf, "ours": np.inf}
        found = {}
        for _ in range(REPEATS):
            for name, function in (("plain", plain), ("ours", ours)):
                spent, found[name] = seconds(function, query, gallery, *labels)
                best[name] = min(best[name], spent)
        error = abs(found["plain"][0] - found["ours"][0])
        ratio = best["ours"] / best["plain"]
        print(f"| {size:,} x {asked:,} | {best['plain']:.2f} | {best['ours']:.2f} | {ratio:.2f} | {error:.1e} |")
    query, gallery = query[:836], gallery[:836]
    spent, _ = seconds(rerank.k_reciprocal, query, gallery)
    print(f"\nRe-ranking 836 x 836 (k1=50, k2=15): {spent:.1f} cpu-s")


if __name__ == "__main__":
    main()
