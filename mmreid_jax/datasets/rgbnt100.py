"""RGBNT100: vehicles in visible, near-infrared and thermal images side by side."""

from __future__ import annotations

from collections.abc import Sequence

from mmreid_jax.data.aligned_captions import FORM
from mmreid_jax.data.records import View
from mmreid_jax.datasets import disk, manifests
from mmreid_jax.datasets.base import Dataset, Known
from mmreid_jax.datasets.disk import AlignedFolders
from mmreid_jax.drawn import drawings
from mmreid_jax.drawn.drawings import Drawing, DrawnSample, Size
from mmreid_jax.retrieval.protocols import MARKET

QUERY_STEP = 5
"""One gallery image in so many is a query as well."""

_RGB, _NIR = View("composite", (0, 256)), View("composite", (256, 512))


def labels(stem: str) -> disk.NameLabels:
    """Labels of ``PPPP_cCCCC_FFF``: identity 1 to 600 and camera 1 to 8, stored from 0."""
    identity, camera = (int(text) for text in disk.match_name(r"(\d+)_c(\d+)_.*", stem))
    if not (1 <= identity <= 600 and 1 <= camera <= 8):
        raise ValueError(f"{stem!r}: identity {identity} is not in 1..600 or camera {camera} is not in 1..8")
    return disk.NameLabels(identity, camera - 1, scene=0)


FOLDERS = AlignedFolders(
    name="rgbnt100",
    folder="RGBNT100",
    inner="rgbir",
    splits={"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"},
    images={"composite": ""},
    labels=labels,
    file_form="PPPP_cCCCC_FFF.jpg",
    source="RGBNT100 is given by its authors: see github.com/ttaalle/multi-modal-vehicle-Re-ID (README).",
    width=768,
    captioned=True,
)


def _drawn(split: str, file: str) -> DrawnSample:
    identity, camera, frame = drawings.numbers(r"(\d{4})_c(\d{4})_(\d+)\.jpg", file)
    return DrawnSample(("train",) if split == "train" else ("gallery",), file, identity, camera, frame=frame)


def drawn_vehicles(counts: Sequence[tuple[str, int, Sequence[int]]]) -> list[DrawnSample]:
    """The samples of (split, identity, images of each camera)."""
    return [
        _drawn(split, f"{identity:04d}_c{camera:04d}_{frame:03d}.jpg")
        for split, identity, per_camera in counts
        for camera, images in enumerate(per_camera, start=1)
        for frame in range(images)
    ]


def small(size: Size) -> list[DrawnSample]:
    """A small set of vehicles, of which a few gallery images are queries."""
    counts = [
        (split, identity, drawings.spread(size.images_per_identity, size.cameras, position))
        for split, position, identity in drawings.identities(size)
    ]
    return drawings.with_queries(drawn_vehicles(counts), min(QUERY_STEP, size.images_per_identity), rotate=True)


def _full() -> list[DrawnSample]:
    return drawings.with_queries([_drawn(row["split"], row["file"]) for row in manifests.rows("rgbnt100")], QUERY_STEP)


DATASET = Dataset(
    description="""\
100 vehicles seen by eight cameras in visible, near- and thermal-infrared images, side by side in one file.

17,250 samples. Columns 0-255 of an image of 768 x 128 pixels (width x height) are visible, 256-511 near-infrared,
512-767 thermal-infrared. The query files are a part of the gallery files.""",
    citation="""@inproceedings{li2020multispectral,
  title = {Multi-Spectral Vehicle Re-Identification: A Challenge},
  author = {Li, Hongchao and Li, Chenglong and Zhu, Xianpeng and Zheng, Aihua and Luo, Bin},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  volume = {34},
  number = {7},
  pages = {11345--11353},
  year = {2020},
}""",
    name="rgbnt100",
    folders=FOLDERS,
    published={
        "train": Known(8675, 50, "train"),
        "query": Known(1715, 50, "test", part_of_list=True),
        "gallery": Known(8575, 50, "test"),
    },
    protocols=(MARKET,),
    captions=FORM,
    composites={
        "thermal": {"rgb": _RGB, "nir": _NIR, "tir": View("composite", (512, 768))},
        # Parity: HTT crops columns 256 to 768, near-infrared and thermal image together (gives the published 75.7 /
        # 92.6).
        "reference": {"rgb": _RGB, "nir": _NIR, "tir": View("composite", (256, 768))},
    },
    composite_key="rgbnt100_third",
    drawing=Drawing(
        name="rgbnt100",
        root=FOLDERS.folder,
        kind="vehicle",
        folders=FOLDERS.split_folders,
        modalities=("rgb", "nir", "tir"),
        small=small,
        full=_full,
        default=Size(24, 16, 8),
        cameras=8,
        files=drawings.side_by_side,
        fixed_size=True,
        captions=FORM,
    ),
)
