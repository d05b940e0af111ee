"""Distances and scores against the matrix product alone and the plain numpy form, and searches against faiss.

    python benchmarks/metrics.py            all
    python benchmarks/metrics.py aligned    from RGBNT201's size to 10,000 queries against 100,000 images; re-ranking
    python benchmarks/metrics.py vi         SYSU-MM01 and LLCM at their true sizes
    python benchmarks/metrics.py stream     1,000 queries, ten nearest of a million, beside faiss-cpu's flat index

The plain form is what the field's repositories do: one matrix product a gallery, an argsort of the whole matrix, a loop
over the queries with boolean masks. Both must give the same scores. Every form runs in a process of its own, in turn,
on one processor, and memory is what it adds at its peak (Linux); none is quicker than the product alone.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmreid_jax import datasets
from mmreid_jax.retrieval import distances, metrics, protocols, rerank, streamed

# Queries, gallery, people, width.
SIZES = {
    "RGBNT201": (836, 836, 30, 2304),
    "RGBNT201, one modality": (836, 836, 30, 768),
    "RGBNT100": (1715, 8575, 50, 2304),
    "RGBNT100, one modality": (1715, 8575, 50, 768),
    "Market-1501": (3368, 19732, 751, 2048),
    "large": (10000, 100000, 5000, 2048),
}
FORMS = ("product", "ours", "plain")
# The plain form's argsort of more distances does not fit: it is given this many queries, and its time is multiplied.
PLAIN_QUERIES = 500
LARGE = 10**8
ROUNDS = 2
STREAMED = (1000, 1_000_000, 512, 10)
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
    scores = metrics.evaluate(protocol.blocks(query, gallery, reuse=True), asked, given, protocol)
    return scores.mAP, scores.rank(1)


def product(query: np.ndarray, gallery: np.ndarray, asked: metrics.Labels, given: metrics.Labels) -> tuple[float, ...]:
    """The matrix product alone, in chunks of queries into one buffer."""
    rows = min(len(query), distances.CHUNK, LARGE // len(gallery) // 3)
    out = np.empty((rows, len(gallery)), np.float32)
    for start in range(0, len(query), rows):
        part = query[start : start + rows]
        np.matmul(part, gallery.T, out=out[: len(part)])
    return ()


def seconds(function: Callable[..., object], *arguments: object) -> tuple[float, object]:
    """Processor seconds of one call, and its result."""
    begun = time.process_time()
    result = function(*arguments)
    return time.process_time() - begun, result


def memory(which: str) -> float:
    """MiB of this process now (VmRSS), or at most since `forget_peak` (VmHWM)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) / 1024


def forget_peak() -> float:
    """Lets the peak of memory begin anew; MiB now."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def child(*arguments: str) -> dict[str, Any]:
    """What a run of this file in a process of its own prints."""
    command = [sys.executable, __file__, *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def one_aligned(case: str, form: str) -> None:
    """Runs one form of one case in this process and prints its time, memory and scores as JSON."""
    asked, size, people, width = SIZES[case]
    rng = np.random.default_rng(0)
    labels = [
        metrics.Labels(rng.integers(0, people, n), rng.integers(0, 4, n), np.zeros(n, int)) for n in (asked, size)
    ]
    centres = rng.standard_normal((people, width), np.float32)
    sides = []
    for table in labels:
        features = rng.standard_normal((len(table.identity), width), np.float32)
        features *= 5
        features += centres[table.identity]
        sides.append(features)
    times = 1
    if form == "plain" and asked * size > LARGE:
        times = asked // PLAIN_QUERIES
        sides[0], labels[0] = (
            sides[0][:PLAIN_QUERIES],
            metrics.Labels(*(c[:PLAIN_QUERIES] for c in vars(labels[0]).values())),
        )
    before = forget_peak()
    best, found = np.inf, None
    for _ in range(max(1, min(20, LARGE // (asked * size * 2)))):
        spent, found = seconds({"product": product, "ours": ours, "plain": plain}[form], *sides, *labels)
        best = min(best, spent)
    print(
        json.dumps({"seconds": best * times, "memory": memory("VmHWM") - before, "scores": found, "whole": times == 1})
    )


def aligned() -> None:
    """Sizes of RGBNT201, RGBNT100, Market-1501, and a large one."""
    print(
        "| queries x gallery x width | product alone (cpu-s) | distances and scores (cpu-s) | ratio | memory (MiB) |"
        " plain numpy (cpu-s, MiB) | difference in mAP |"
    )
    print("|---|---|---|---|---|---|---|")
    for case, (asked, size, _, width) in SIZES.items():
        best: dict[str, dict[str, Any]] = {}
        for _ in range(1 if asked * size > LARGE else ROUNDS):
            for form in FORMS:
                now = child("one_aligned", case, form)
                if form not in best or now["seconds"] < best[form]["seconds"]:
                    best[form] = now
        alone, own, other = (best[form] for form in FORMS)
        error = f"{abs(own['scores'][0] - other['scores'][0]):.1e}" if other["whole"] else ""
        used = f"{other['memory']:,.0f}" if other["whole"] else f"of {PLAIN_QUERIES} queries, multiplied"
        print(
            f"| {asked:,} x {size:,} x {width:,} | {alone['seconds']:.3f} | {own['seconds']:.3f} |"
            f" {own['seconds'] / alone['seconds']:.2f} | {own['memory']:,.0f} | {other['seconds']:.2f}, {used} |"
            f" {error} |",
            flush=True,
        )
    rng = np.random.default_rng(0)
    query, gallery = (rng.standard_normal((836, 2304), np.float32) for _ in range(2))
    spent, _ = seconds(rerank.k_reciprocal, query, gallery)
    print(f"\nRe-ranking 836 x 836 (k1=50, k2=15): {spent:.1f} cpu-s")


def one_stream(file: str, form: str) -> None:
    """Searches a file of features by one form in this process and prints its time, memory and result as JSON."""
    queries, _, width, count = STREAMED
    query = np.random.default_rng(1).standard_normal((queries, width), np.float32)
    gallery = np.load(file, mmap_mode="r")

    def by_faiss() -> np.ndarray:
        index = faiss.IndexFlatL2(width)
        # Read piece by piece, so that the file does not count as memory beside the index.
        for start in range(0, len(gallery), 10_000):
            rows = min(10_000, len(gallery) - start)
            index.add(
                np.fromfile(file, np.float32, rows * width, offset=gallery.offset + 4 * start * width).reshape(
                    rows, width
                )
            )
        return index.search(query, count)[1]

    if form == "faiss":
        import faiss

    before, begun = forget_peak(), time.perf_counter()
    spent, found = seconds(by_faiss if form == "faiss" else lambda: streamed.top_k(query, gallery, count)[0])
    wall = time.perf_counter() - begun
    print(
        json.dumps(
            {"seconds": spent, "wall": wall, "memory": memory("VmHWM") - before, "found": np.asarray(found).tolist()}
        )
    )


def stream() -> None:
    """A million rows in a memory-mapped file, with time and peak memory."""
    queries, size, width, count = STREAMED
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "features.npy"
        gallery = np.lib.format.open_memmap(file, "w+", np.float32, (size, width))
        rng = np.random.default_rng(0)
        for start in range(0, size, 10_000):
            gallery[start : start + 10_000] = rng.standard_normal((min(10_000, size - start), width), np.float32)
        gallery.flush()
        del gallery
        done = {form: child("one_stream", str(file), form) for form in ("ours", "faiss")}
    same = np.mean(np.array(done["ours"]["found"]) == np.array(done["faiss"]["found"]))
    print(f"{queries:,} queries, {count} nearest of {size:,} x {width}\n")
    print("| search | cpu-s | seconds | memory (MiB) |\n|---|---|---|---|")
    for form, name in (("ours", "mmreid_jax, streamed from the file"), ("faiss", "faiss-cpu IndexFlatL2, in memory")):
        now = done[form]
        print(f"| {name} | {now['seconds']:.1f} | {now['wall']:.1f} | {now['memory']:,.0f} |")
    print(f"\nThe same rows in {100 * same:.2f} % of the places.")


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
        packed = (resources.files("mmreid_jax") / "datasets" / "manifests" / name).read_bytes()
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
        return dataclasses.replace(datasets.protocol("llcm_ir_to_vis"), gallery=None)
    return datasets.protocol(name)


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
    before = forget_peak()
    spent, found = seconds({"plain": plain_vi, "ours": ours_vi}[form], names, *sides, asked, given)
    print(json.dumps({"seconds": spent, "memory": memory("VmHWM") - before, "scores": found}))


def visible_infrared() -> None:
    """SYSU-MM01 and LLCM, each form in a process of its own, so that its peak of memory is its own."""
    print("| search | plain numpy (cpu-s, MiB) | mmreid_jax (cpu-s, MiB) | ratio | largest difference of mAP, rank-1 |")
    print("|---|---|---|---|---|")
    for case in VI_CASES:
        best: dict[str, tuple[float, float]] = {}
        scores = {}
        for _ in range(VI_REPEATS):
            for form in ("plain", "ours"):
                done = child("one", case, form)
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
        spent, _ = seconds(datasets.protocol(name).galleries, images(data_set)[1])
        print(f"Drawing the ten galleries of {name}: {spent:.3f} cpu-s")


def main() -> None:
    """The command."""
    sections = {"aligned": aligned, "vi": visible_infrared, "stream": stream}
    match sys.argv[1:]:
        case ["one", case, form]:
            one_vi(case, form)
        case ["one_aligned", case, form]:
            one_aligned(case, form)
        case ["one_stream", file, form]:
            one_stream(file, form)
        case [] | [("aligned" | "vi" | "stream")]:
            # Processes that this one starts stay on its processor, with as many threads.
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            for name in sys.argv[1:] or sections:
                sections[name]()
                print()
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
