"""Tiny data sets in the true folder layouts, with true-looking names and noise for images."""

from __future__ import annotations

import pathlib
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

Names = Mapping[str, Sequence[str]]

VEHICLES = {
    "bounding_box_train": ["0501_c0001_000.jpg", "0501_c0002_001.jpg", "0502_c0008_000.jpg"],
    "query": ["0003_c0001_000.jpg"],
    "bounding_box_test": ["0003_c0001_000.jpg", "0003_c0004_001.jpg", "0010_c0002_000.jpg"],
}

NAMES: Mapping[str, Names] = {
    "rgbnt201": {
        "train_171": ["000009_cam3_1_00.jpg", "000009_cam1_0_01.jpg", "000010_cam4_2_00.jpg", "000328_cam2_0_12.jpg"],
        "test": ["000258_cam1_0_00.jpg", "000258_cam2_0_01.jpg", "000299_cam2_0_11.jpg"],
    },
    "rgbnt100": VEHICLES,
    "rgbn300": VEHICLES,
    "msvr310": {
        "bounding_box_train": ["0001_s002_v0_000.jpg", "0001_s030_v7_001.jpg", "0140_s016_v5_004.jpg"],
        "query3": ["0331_s000_v6_003.jpg"],
        "bounding_box_test": ["0331_s000_v6_003.jpg", "0331_s011_v2_000.jpg", "0002_s002_v0_000.jpg"],
    },
    "market1501_mm": {
        "train": ["0002_c1s1_000451_03.jpg", "0007_c3s3_077419_12.jpg"],
        "query": ["0001_c1s1_001051_00.jpg"],
        "gallery": ["-1_c2s1_000401_03.jpg", "0000_c1s1_000151_01.jpg", "0001_c6s4_001051_02.jpg"],
    },
}

FOLDERS = {
    "rgbnt201": "RGBNT201",
    "rgbnt100": "RGBNT100/rgbir",
    "rgbn300": "RGBN300/rgbir",
    "msvr310": "MSVR310",
    "market1501_mm": "market1501_to_RGBNT201_dark",
}


def places(dataset: str, root: pathlib.Path, folder: str, name: str) -> list[pathlib.Path]:
    """Paths of the images of one sample under the folder that holds the splits, visible image first."""
    if dataset in ("rgbnt100", "rgbn300"):
        return [root / folder / name]
    if dataset == "msvr310":
        return [root / folder / name[:4] / modality / name for modality in ("vis", "ni", "th")]
    return [root / folder / modality / name for modality in ("RGB", "NI", "TI")]


def write_image(path: pathlib.Path, size: tuple[int, int]) -> None:
    """A noise JPEG of `size` (width, height) that depends on the path's last parts alone."""
    seed = zlib.crc32("/".join(path.parts[-3:]).encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=80)


def write(dataset: str, parent: pathlib.Path, names: Names | None = None) -> pathlib.Path:
    """Writes the data set below `parent`; returns the folder that holds the splits."""
    root = parent / FOLDERS[dataset]
    size = {"rgbnt100": (768, 8), "rgbn300": (512, 8)}.get(dataset, (16, 32))
    for folder, files in (names or NAMES[dataset]).items():
        for name in files:
            for path in places(dataset, root, folder, name):
                write_image(path, size)
    return root
