"""Tiny data sets in the true folder layouts, with true-looking names and noise for images."""

from __future__ import annotations

import pathlib
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

Names = Mapping[str, Sequence[str]]

SINGLE = ("sysu_mm01", "regdb", "llcm")
"""Visible-infrared data sets with a tree of their own: a sample is one image of one modality."""

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

NAMES = {**NAMES, "rgbnt201_c": NAMES["rgbnt201"]}

# Of a visible-infrared data set the files below its folder, and the lists that come with them. As in the real lists
# classes are not in the order of the identities, and a second line of the identity lists means nothing.
IMAGES: Names = {
    "sysu_mm01": [
        *(f"cam{camera}/0004/{number}.jpg" for camera in (1, 3) for number in ("0001", "0002")),
        *("cam5/0011/0007.jpg", "cam4/0011/0003.jpg", "cam6/0011/0001.jpg", "cam3/0011/0009.jpg"),
        *("cam2/0002/0001.jpg", "cam6/0002/0001.jpg"),
        *("cam1/0006/0001.jpg", "cam2/0006/0002.jpg", "cam3/0006/0001.jpg", "cam6/0006/0001.jpg"),
        *("cam6/0010/0002.jpg", "cam6/0010/0001.jpg", "cam4/0010/0001.jpg"),
        "cam1/0300/0001.jpg",  # an identity on no list
    ],
    "regdb": [
        f"{folder}/{identity}/male_back_{letter}_{100 * identity + number:05d}_{identity}.bmp"
        for folder, letter in (("Visible", "v"), ("Thermal", "t"))
        for identity in (1, 7, 12, 400)
        for number in (0, 2)
    ],
    "llcm": [
        *("vis/0250/0250_c03_s200519_f1_vis.jpg", "vis/0250/0250_c04_s200520_f2_vis.jpg"),
        *("vis/0012/0012_c09_s200519_f10_vis.jpg", "nir/0012/0012_c08_s200519_f11_nir.jpg"),
        *("nir/0250/0250_c06_s195701_f3_nir.jpg", "nir/0250/0250_c01_s195701_f2_nir.jpg"),
        *(
            f"{folder}/0891/0891_c05_s181957_f{frame}_vis.jpg"
            for folder in ("vis", "test_vis/cam5")
            for frame in (9, 10)
        ),
        *(f"{folder}/0003/0003_c01_s181957_f7_vis.jpg" for folder in ("vis", "test_vis/cam1")),
        *(f"{folder}/0891/0891_c06_s183650_f20_nir.jpg" for folder in ("nir", "test_nir/cam6")),
        *(f"{folder}/0003/0003_c02_s183650_f20_nir.jpg" for folder in ("nir", "test_nir/cam2")),
        *(f"{folder}/0003/0003_c09_s183650_f20_nir.jpg" for folder in ("nir", "test_nir/cam9")),
    ],
}


def _regdb_lists() -> dict[str, str]:
    lists = {}
    for trial in range(1, 11):
        parts = {"train": (400, 7), "test": (12, 1)} if trial % 2 else {"train": (1, 400), "test": (7, 12)}
        for part, identities in parts.items():
            for folder in ("Visible", "Thermal"):
                lists[f"idx/{part}_{folder.lower()}_{trial}.txt"] = "".join(
                    f"{file} {label}\n"
                    for label, identity in enumerate(identities)
                    for file in IMAGES["regdb"]
                    if file.startswith(f"{folder}/{identity}/")
                )
    return lists


LISTS: Mapping[str, Mapping[str, str]] = {
    "sysu_mm01": {
        "exp/train_id.txt": "11,2\n99",
        "exp/val_id.txt": "4\n",
        "exp/test_id.txt": "10,6",
        "exp/available_id.txt": "2,4,6,10,11",
    },
    "regdb": _regdb_lists(),
    "llcm": {
        "idx/train_vis.txt": "".join(
            f"{file} {label}\n" for file, label in zip(IMAGES["llcm"][:3], (0, 0, 1), strict=True)
        ),
        "idx/train_nir.txt": "".join(f"{IMAGES['llcm'][i]} {label}\n" for i, label in ((4, 0), (5, 0), (3, 1))),
        "idx/test_vis.txt": "".join(f"{IMAGES['llcm'][i]} {label}\n" for i, label in ((7, 0), (6, 0), (10, 1))),
        "idx/test_nir.txt": "".join(f"{IMAGES['llcm'][i]} {label}\n" for i, label in ((12, 0), (14, 1), (16, 1))),
        "idx/test_id.txt": "891,3\n",
    },
}

FOLDERS = {
    "rgbnt201": "RGBNT201",
    "rgbnt201_c": "RGBNT201",
    "rgbnt100": "RGBNT100/rgbir",
    "rgbn300": "RGBN300/rgbir",
    "msvr310": "MSVR310",
    "market1501_mm": "market1501_to_RGBNT201_dark",
    "sysu_mm01": "SYSU-MM01",
    "regdb": "RegDB",
    "llcm": "LLCM",
}


def places(dataset: str, root: pathlib.Path, folder: str, name: str) -> list[pathlib.Path]:
    """Paths of the images of one sample under the folder that holds the splits, visible image first."""
    if dataset in SINGLE:
        return [root / name]
    if dataset in ("rgbnt100", "rgbn300"):
        return [root / folder / name]
    if dataset == "msvr310":
        return [root / folder / name[:4] / modality / name for modality in ("vis", "ni", "th")]
    return [root / folder / modality / name for modality in ("RGB", "NI", "TI")]


def write_image(path: pathlib.Path, size: tuple[int, int]) -> None:
    """A noise image of `size` (width, height) that depends on the path's last parts alone."""
    seed = zlib.crc32("/".join(path.parts[-3:]).encode("utf-8", "surrogateescape"))
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=80)


def write(dataset: str, parent: pathlib.Path, names: Names | None = None) -> pathlib.Path:
    """Writes the data set below `parent`; returns the folder that holds the splits."""
    root = parent / FOLDERS[dataset]
    if dataset in SINGLE:
        return write_single(dataset, root)
    size = {"rgbnt100": (768, 8), "rgbn300": (512, 8)}.get(dataset, (16, 32))
    for folder, files in (names or NAMES[dataset]).items():
        for name in files:
            for path in places(dataset, root, folder, name):
                write_image(path, size)
    return root


def write_single(dataset: str, root: pathlib.Path) -> pathlib.Path:
    """Writes a visible-infrared data set with its lists into `root`."""
    for camera in range(1, 7) if dataset == "sysu_mm01" else ():
        (root / f"cam{camera}").mkdir(parents=True)
    for name in IMAGES[dataset]:
        write_image(root / name, (16, 32))
    for name, text in LISTS[dataset].items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root
