"""Distances and scores against the plain numpy form, in turn in one run.

    python benchmarks/metrics.py            all
    python benchmarks/metrics.py aligned    RGBNT sizes, and re-ranking
    python benchmarks/metrics.py vi         SYSU-MM01 and LLCM at their true sizes, with peak memory

The plain form is what the field's repositories do: one matrix product a gallery, an argsort of the whole matrix, a loop
over the queries with boolean masks. Both must give the same scores.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmreid_jax.retrieval import metrics, protocols, rerank

SIZES = ((836, 836, 30, 2304), (8575, 1715, 50, 2304))
REPEATS = 3
WIDTH = 2048
SYSU_MODES = tuple(f"sysu_{search}_{shots}" for search in ("all", "indoor") for shots in ("single", "multi"))
VI_CASES = {
    **{f"SYSU-MM01, {mode[5:].replace('_', ', ')}-shot": (mode,) for mode in SYSU_MODES},
    "SYSU-MM01, the four together": SYSU_MODES,
    "LLCM, IR to VIS": ("llcm_ir_to_vis",),
    "LLCM, IR to VIS, whole pool": ("whole pool",),
}
VI_REPEATS = 2


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


def aligned() -> None:
    """Sizes of RGBNT201 and RGBNT100."""
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


@dataclasses.dataclass(frozen=True)
class Images:
    """The labels and file names of a table."""

    identity: np.ndarray
    camera: np.ndarray
    file: np.ndarray

    @property
    def scene(self) -> np.ndarray:
        """None is known."""
        return np.zeros_like(self.identity)

    def select(self, rows: np.ndarray) -> metrics.Labels:
        """Labels of some rows."""
        return metrics.Labels(self.identity[rows], self.camera[rows], self.scene[rows])


def images(data_set: str) -> tuple[Images, Images]:
    """The infrared queries and visible pool of SYSU-MM01 or LLCM: true names or numbers of the test images."""

    def rows_of(name: str) -> list[dict[str, str]]:
        packed = (resources.files("mmreid_jax") / "data" / "manifests" / name).read_bytes()
        return list(csv.DictReader(gzip.decompress(packed).decode().splitlines()))

    if data_set == "llcm":
        sides = []
        for modality in ("nir", "vis"):
            files = [row["file"] for row in rows_of("llcm.csv.gz") if row["list"] == f"test_{modality}"]
            numbers = [re.search(r"(\d+)_c(\d+)_", file).groups() for file in files]  # type: ignore[union-attr]
            identity, camera = np.array(numbers, int).T
            sides.append(Images(identity, camera - 1, np.array(files)))
        return sides[0], sides[1]
    test = {row["id"] for row in rows_of("sysu_official_gallery_first10.csv.gz")}
    counts = [tuple(map(int, row.values())) for row in rows_of("sysu_counts.csv.gz") if row["id"] in test]
    listed = sorted((name, cam - 1, number) for cam, name, count in counts for number in range(count))
    identity, camera, number = np.array(listed).T
    every = Images(identity, camera, np.array([f"{n:04d}.jpg" for n in number]))
    infrared = np.isin(camera, (2, 5))
    sides = [Images(identity[w], camera[w], every.file[w]) for w in (infrared, ~infrared)]
    return sides[0], sides[1]


def plain_trial(
    query: np.ndarray, gallery: np.ndarray, asked: metrics.Labels, given: metrics.Labels, protocol: protocols.Protocol
) -> tuple[float, float]:
    """mAP and rank-1 of one gallery as the repositories of SYSU-MM01 and LLCM compute them, in float64."""
    order = np.argsort(-np.matmul(query, gallery.T), axis=1)
    ranked = given.identity[order]
    right = (ranked == asked.identity[:, None]).astype(np.int32)
    curves, precisions = [], []
    for row in range(len(query)):
        if protocol.removes == "camera_2_for_camera_3":
            kept = ~((asked.camera[row] == 2) & (given.camera[order[row]] == 1))
        else:
            kept = ~((ranked[row] == asked.identity[row]) & (given.camera[order[row]] == asked.camera[row]))
        hits = right[row][kept]
        if not hits.any():
            continue
        people = ranked[row][kept]
        people = people[np.sort(np.unique(people, return_index=True)[1])]
        curves.append((people == asked.identity[row]).cumsum()[:20])
        precisions.append((hits.cumsum() / (np.arange(len(hits)) + 1.0) * hits).sum() / hits.sum())
    return float(np.mean(precisions)), float(np.mean([curve[0] for curve in curves]))


def plain_vi(
    names: tuple[str, ...], query: np.ndarray, pool: np.ndarray, asked: Images, given: Images
) -> list[tuple[float, float]]:
    """mAP and rank-1 under every protocol: a matrix product, an argsort and a loop for every trial."""
    found = []
    labels = asked.select(np.arange(len(query)))
    wide, pool = query.astype(np.float64), pool.astype(np.float64)
    for name in names:
        protocol = protocol_of(name)
        trials = [
            plain_trial(wide, pool[rows], labels, given.select(rows), protocol) for rows in protocol.galleries(given)
        ]
        found.append((float(np.mean([t[0] for t in trials])), float(np.mean([t[1] for t in trials]))))
    return found


def ours_vi(
    names: tuple[str, ...], query: np.ndarray, pool: np.ndarray, asked: Images, given: Images
) -> list[tuple[float, float]]:
    """The same by the library: distances to the pool once for all protocols and trials, in float32."""
    first = protocol_of(names[0])
    apart = first.distances(query, pool) if len(names) > 1 else first.blocks(query, pool, reuse=True)
    scored = [metrics.evaluate_trials(apart, asked, given, protocol_of(name)) for name in names]
    return [(trials.mAP, trials.rank(1)) for trials in scored]


def protocol_of(name: str) -> protocols.Protocol:
    """A protocol of the library, or that of LLCM without its draw."""
    if name == "whole pool":
        return dataclasses.replace(protocols.by_name("llcm_ir_to_vis"), gallery=None)
    return protocols.by_name(name)


def one_vi(case: str, form: str) -> None:
    """Runs one form of one case in this process and prints its time, memory and scores as JSON."""
    names = VI_CASES[case]
    asked, given = images("sysu" if names[0].startswith("sysu") else "llcm")
    rng = np.random.default_rng(0)
    people = np.unique(asked.identity)
    centres = rng.standard_normal((people.max() + 1, WIDTH), np.float32)
    sides = []
    for table in (asked, given):
        features = rng.standard_normal((len(table.identity), WIDTH), np.float32)
        features *= 5
        features += centres[table.identity]
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        sides.append(features)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spent, found = seconds({"plain": plain_vi, "ours": ours_vi}[form], names, *sides, asked, given)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": spent, "memory": (peak - before) / 1024, "scores": found}))


def visible_infrared() -> None:
    """SYSU-MM01 and LLCM, each form in a process of its own, so that its peak of memory is its own."""
    print("| search | plain numpy (cpu-s, MiB) | mmreid_jax (cpu-s, MiB) | ratio | largest difference of mAP, rank-1 |")
    print("|---|---|---|---|---|")
    for case in VI_CASES:
        best: dict[str, tuple[float, float]] = {}
        scores = {}
        for _ in range(VI_REPEATS):
            for form in ("plain", "ours"):
                command = [sys.executable, __file__, "one", case, form]
                done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                now = (done["seconds"], done["memory"])
                best[form] = min(best.get(form, now), now)
                scores[form] = np.array(done["scores"])
        error = np.abs(scores["plain"] - scores["ours"]).max()
        shown = [f"{best[form][0]:.2f}, {best[form][1]:,.0f}" for form in ("plain", "ours")]
        print(
            f"| {case} | {shown[0]} | {shown[1]} | {best['ours'][0] / best['plain'][0]:.2f} | {error:.1e} |", flush=True
        )
    print()
    for name, data_set in (("sysu_all_multi", "sysu"), ("llcm_ir_to_vis", "llcm")):
        spent, _ = seconds(protocols.by_name(name).galleries, images(data_set)[1])
        print(f"Drawing the ten galleries of {name}: {spent:.3f} cpu-s")


def main() -> None:
    """The command."""
    match sys.argv[1:]:
        case ["one", case, form]:
            one_vi(case, form)
        case ["aligned"]:
            aligned()
        case ["vi"]:
            visible_infrared()
        case []:
            aligned()
            print()
            visible_infrared()
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
