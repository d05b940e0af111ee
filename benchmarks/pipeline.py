"""How many images a second the input pipeline delivers: python -m benchmarks.pipeline [--images N] [--batch B]

Writes three-modality noise JPEGs to a temporary folder, and measures the stages of the pipeline one by one in one
thread, then whole training batches (P x K, HTT's augmentation) for several numbers of threads and worker processes,
decoding on the fly, from the store of decoded images, and, of images that lie on the device, what is left to the host.
Prints a markdown table. Images are single modalities: a batch of 32 samples holds 96. Every figure is the best of
several rounds, which is what a busy machine disturbs least.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from mmreid_jax.data import images, pipeline, samplers, transforms
from mmreid_jax.data.records import Records, View
from mmreid_jax.datasets.folder import FolderSource
from mmreid_jax.errors import run_command

SIZE = (256, 128)
FILE_SIZE = (288, 144)
"""Files differ in size from what the network sees, so that resizing is part of the work."""
MODALITIES = ("rgb", "nir", "tir")
PER_IDENTITY = 4
LAYOUTS = ((0, 0), (1, 0), (2, 0), (1, 1), (1, 2))
TORCHREID = {"flip": 0.5, "random_crop": 0.5, "brightness": 0.2, "contrast": 0.15}
"""More of augmentation than HTT's crop and erasing."""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=384, help="samples (three images each) on disk")
    parser.add_argument("--batch", type=int, default=32, help="samples in a batch")
    parser.add_argument("--steps", type=int, default=12, help="batches in a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the best counts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        records = noise_table(Path(folder) / "images", arguments.images)
        print(f"{os.cpu_count()} processors; JPEG {FILE_SIZE[0]} x {FILE_SIZE[1]} -> {SIZE[0]} x {SIZE[1]}\n")
        print("| stage | threads | workers | images/s | first batch (s) |")
        print("|---|---|---|---|---|")
        for name, rate in stages(records, arguments.rounds):
            print(f"| {name} | 1 | 0 | {rate:,.0f} | |", flush=True)
        position = np.arange(len(records) * len(MODALITIES), dtype=np.int32).reshape(len(records), -1)
        on_device = images.Held(position, np.ones(len(records), bool))
        cache = str(Path(folder) / "cache")
        for name, more, place, held, layouts in (
            ("batches, decoding", {}, "", None, LAYOUTS),
            ("batches, from the store", {}, cache, None, LAYOUTS),
            ("batches, images on the device", {}, "", on_device, LAYOUTS),
            ("torchreid's augmentation, from the store", TORCHREID, cache, None, LAYOUTS[:1]),
            ("torchreid's augmentation, images on the device", TORCHREID, "", on_device, LAYOUTS[:1]),
        ):
            options = pipeline.ImageOptions(SIZE, cache=place, **more)
            for threads, workers in layouts:
                rate, first = batches(records, options, threads, workers, arguments, held)
                print(f"| {name} | {threads} | {workers} | {rate:,.0f} | {first:.2f} |", flush=True)


def noise_table(folder: Path, samples: int) -> Records:
    """A table of noise images, smooth enough to weigh what photographs do."""
    from PIL import Image

    rng = np.random.default_rng(0)
    names = tuple(f"{row:06d}.jpg" for row in range(samples))
    folders = {modality: folder / modality for modality in MODALITIES}
    for place in folders.values():
        place.mkdir(parents=True)
        for name in names:
            coarse = rng.integers(0, 256, (FILE_SIZE[0] // 4, FILE_SIZE[1] // 4, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize(FILE_SIZE[::-1], Image.Resampling.BICUBIC)
            image.save(place / name, quality=90)
    zeros = np.zeros(samples, np.int32)
    return Records(
        name="noise/train",
        identity=(np.arange(samples) // PER_IDENTITY).astype(np.int32),
        camera=zeros,
        scene=zeros,
        file=np.array(names),
        views={modality: View(modality) for modality in MODALITIES},
        source=FolderSource(folders, names),
        rows=np.arange(samples),
    )


def stages(records: Records, rounds: int) -> Iterator[tuple[str, float]]:
    """(stage, images a second) of the stages of a training image, each alone."""
    rows = range(min(len(records), 64))
    encoded = [file for sample in records.encoded(rows) for file in sample.values()]
    decoded = [images.decode(file, "noise") for file in encoded]
    resized = [transforms.resize(image, SIZE, "bicubic") for image in decoded]
    numbers = transforms.random_numbers(0, 0, len(resized), 1)[:, 0].tolist()

    def augment() -> None:
        for image, own in zip(resized, numbers, strict=True):
            transforms.apply(image, transforms.draw(transforms.Numbers(own), SIZE, flip=0.5), 10)

    work: dict[str, Callable[[], object]] = {
        "read files": lambda: records.encoded(rows),
        "decode (simplejpeg)": lambda: [images.decode(file, "noise") for file in encoded],
        "decode (Pillow)": lambda: [images.decode_with_pillow(file) for file in encoded],
        "resize, bicubic": lambda: [transforms.resize(image, SIZE, "bicubic") for image in decoded],
        "resize, bilinear": lambda: [transforms.resize(image, SIZE, "bilinear") for image in decoded],
        "flip, pad, crop, erasing": augment,
    }
    for name, run in work.items():
        yield name, len(encoded) / min(seconds(run) for _ in range(rounds))


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def batches(
    records: Records,
    options: pipeline.ImageOptions,
    threads: int,
    workers: int,
    arguments: argparse.Namespace,
    held: images.Held | None,
) -> tuple[float, float]:
    """(images a second, seconds until the first batch) of training batches; `held`: of images on the device."""
    identities = samplers.identities_per_batch(arguments.batch, PER_IDENTITY)
    steps = arguments.steps * (arguments.rounds + 1)
    plan = samplers.pk(records.identity, identities, PER_IDENTITY, 1, 0, steps_per_epoch=steps)
    pipeline.train_batches(records, plan, options, seed=0, held=held).close()  # builds the store, where there is one
    start = time.perf_counter()
    with pipeline.train_batches(
        records, plan, options, seed=0, threads=threads, workers=workers, held=held
    ) as iterator:
        next(iterator)
        first = time.perf_counter() - start
        for _ in range(arguments.steps - 1):  # a first round fills caches and buffers
            next(iterator)
        times = [seconds(lambda: [next(iterator) for _ in range(arguments.steps)]) for _ in range(arguments.rounds)]
    return arguments.steps * arguments.batch * len(MODALITIES) / min(times), first


if __name__ == "__main__":
    run_command(main)
