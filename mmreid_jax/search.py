"""Ranked matches for a folder: ``python -m mmreid_jax.search --checkpoint DIR --query DIR --gallery DIR``."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmreid_jax.data import folder
from mmreid_jax.data.images import decode_sample
from mmreid_jax.errors import UserError, run_command
from mmreid_jax.extract import Extractor, add_model_flags, describe
from mmreid_jax.retrieval import distances
from mmreid_jax.visualize import search_page


def nearest(query: np.ndarray, gallery: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The closest gallery rows of each query, best first, equal ones in the order of the gallery.

    Args:
      query: features [Q, D] of length one.
      gallery: features [G, D] of length one.
      top: how many.

    Returns:
      (int [Q, K] gallery rows, float32 [Q, K] squared Euclidean distances), K = min(top, G).
    """
    apart = distances.squared_euclidean(query, gallery)
    order = distances.nearest(apart, top)
    return order, np.take_along_axis(apart, order, axis=1)


def write_table(path: Path, queries: np.ndarray, files: np.ndarray, order: np.ndarray, apart: np.ndarray) -> None:
    """A CSV file of all matches: query, rank, match, distance."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("query", "rank", "match", "distance"))
        for name, row, values in zip(queries, order, apart, strict=True):
            for rank, (index, value) in enumerate(zip(row, values, strict=True), start=1):
                writer.writerow((name, rank, files[index], f"{value:.6f}"))


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m mmreid_jax.search", description=__doc__)
    add_model_flags(parser)
    parser.add_argument("--query", required=True, help="folder of images, or of one subfolder per modality")
    parser.add_argument("--gallery", required=True, help="folder to search, laid out likewise")
    for side in ("query", "gallery"):
        text = "of its images (default: that of the folder's name, else visible)"
        parser.add_argument(f"--{side}_modality", help=text)
    parser.add_argument("--out", type=Path, default=Path("search"), help="folder for matches.csv and search.html")
    parser.add_argument("--top", type=int, default=10, help="matches per query")
    parser.add_argument("--threshold", type=float, help="largest distance that counts as the same (see a run's report)")
    arguments = parser.parse_args(argv)
    if arguments.top < 1:
        raise UserError(f"--top is {arguments.top}; it must be at least 1")
    extractor = Extractor(arguments.checkpoint, arguments.which)
    modalities = extractor.method.facts.modalities
    sides = {}
    for side in ("query", "gallery"):
        chosen = getattr(arguments, f"{side}_modality")
        place = getattr(arguments, side)
        records, absent = folder.open_folder(place, modalities, chosen, one=extractor.one_modality)
        print(describe(records, absent, extractor.one_modality))
        sides[side] = records, extractor(records, absent)
    (queries, query), (gallery, found) = sides["query"], sides["gallery"]
    order, apart = nearest(query, found, arguments.top)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_table(arguments.out / "matches.csv", queries.file, gallery.file, order, apart)

    def images(side: str, row: int) -> dict[str, np.ndarray]:
        records = sides[side][0]
        present = {name: view for name, view in records.views.items() if view.image == name}
        whole = decode_sample(records, row, records.encoded([row])[0], truncated=True)
        return {name: whole[name] for name in present}

    results = search_page.SearchResults(order, apart, list(gallery.file), arguments.threshold)
    page = search_page.write_search_page(arguments.out, list(queries.file), results, images, top=arguments.top)
    for name, row, values in list(zip(queries.file, order, apart, strict=True))[:20]:
        matches = ", ".join(f"{gallery.file[i]} ({value:.3f})" for i, value in zip(row[:3], values[:3], strict=True))
        print(f"{name}: {matches}")
    print(f"matches: {arguments.out / 'matches.csv'}\npage: {page}")


if __name__ == "__main__":
    run_command(main)
