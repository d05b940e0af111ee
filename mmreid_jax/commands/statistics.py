"""Mean and deviation of a data set's images by modality.

``python -m mmreid_jax statistics --dataset rgbnt201``

They are what ``config.data.mean`` and ``config.data.std`` take, of images scaled to 0..1. As torchreid's
``compute_mean_std``, with the deviation of all pixels beside its mean over images.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence

import numpy as np

import mmreid_jax.datasets as datasets
from mmreid_jax.data import pipeline
from mmreid_jax.data.images import drop_broken
from mmreid_jax.data.records import Records
from mmreid_jax.datasets import catalogue
from mmreid_jax.datasets.folder import POLICIES
from mmreid_jax.errors import UserError
from mmreid_jax.paths import default_data_dir, path_of

CHANNELS = "RGB"


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Of the images of one modality, scaled to 0..1, by channel.

    Attributes:
      mean: float64 [3].
      deviation: float64 [3], of all pixels of all images.
      within: float64 [3], mean over images of the deviation within an image (divisor n - 1): torchreid's ``std``.
    """

    mean: np.ndarray
    deviation: np.ndarray
    within: np.ndarray


def sums(images: np.ndarray) -> np.ndarray:
    """What adds up from batch to batch, float64 [3, 3]: sums over images of mean, mean square and deviation by channel.

    Args:
      images: uint8 [B, H, W, 3].
    """
    scaled = images.reshape(len(images), -1, 3).astype(np.float64) / 255
    parts = scaled.mean(axis=1), np.square(scaled).mean(axis=1), scaled.std(axis=1, ddof=1)
    return np.stack([part.sum(axis=0) for part in parts])


def measure(records: Records, size: tuple[int, int], *, threads: int = 2, batch: int = 64) -> dict[str, Statistics]:
    """Statistics of all images of a table, by modality.

    Args:
      records: N samples, at least one.
      size: (H, W) to which images are resized first, as for training.
      threads: that decode.
      batch: samples decoded at a time.

    Raises:
      UserError: an image cannot be decoded, or images of that size have no deviation.
    """
    from tqdm import tqdm

    if size[0] * size[1] < 2:
        raise UserError(f"images of {size[0]} x {size[1]} pixels have no deviation; give a larger size")
    if records.modality is not None:
        tables = {name: records.of_modality(name) for name in records.modalities}
        return {name: measure(table, size, threads=threads, batch=batch)[name] for name, table in tables.items()}
    total = dict.fromkeys(records.modalities, np.zeros((3, 3)))
    options = pipeline.ImageOptions(size=size)
    with pipeline.eval_batches(records, options, min(batch, len(records)), threads=threads) as batches:
        count = -(-len(records) // min(batch, len(records)))
        for loaded in tqdm(batches, total=count, unit="batch", disable=not sys.stderr.isatty()):
            total = {name: total[name] + sums(pixels[loaded["valid"]]) for name, pixels in loaded["images"].items()}
    result = {}
    for name, value in total.items():
        mean, square, within = value / len(records)
        result[name] = Statistics(mean, np.sqrt(np.maximum(square - mean**2, 0)), within)
    return result


def describe(statistics: Mapping[str, Statistics]) -> str:
    """The table for the console."""
    lines: list[tuple[str, ...]] = [("", "mean", "deviation", "within an image")]
    for name, one in statistics.items():
        lines.append((name.upper(), *map(_numbers, (one.mean, one.deviation, one.within))))
    every = [
        np.mean([getattr(one, field) for one in statistics.values()], axis=0)
        for field in ("mean", "deviation", "within")
    ]
    lines.append(("all", *map(_numbers, every)))
    widths = [max(len(line[place]) for line in lines) for place in range(4)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _numbers(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.4f}" for value in values) + ")"


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m mmreid_jax statistics", description=__doc__)
    parser.add_argument("--dataset", required=True, help=", ".join(datasets.names()))
    parser.add_argument("--data_dir", type=path_of, default=default_data_dir(), help="folder of prepared data sets")
    parser.add_argument("--split", default="train", help="train, query or gallery")
    parser.add_argument("--image_size", type=int, nargs=2, default=(256, 128), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--threads", type=int, default=2)
    text = "images that cannot be read: skip (leave out their samples) or stop (default %(default)s)"
    parser.add_argument("--broken", choices=POLICIES, default="stop", help=text)
    arguments = parser.parse_args(argv)
    records = catalogue.load(arguments.dataset, arguments.split, arguments.data_dir)
    if arguments.broken == "skip":
        records = drop_broken(records, threads=arguments.threads)
    height, width = arguments.image_size
    what = f"{records.name}{' (drawn data)' if records.drawn else ''}: {len(records)} samples"
    print(f"{what} at {height} x {width}, scaled to 0..1, channels {CHANNELS}")
    print(describe(measure(records, (height, width), threads=arguments.threads)))
