"""RGBN300: vehicles in visible and near-infrared images side by side, named as those of RGBNT100."""

from __future__ import annotations

from mmreid_jax.data.records import View
from mmreid_jax.datasets import rgbnt100
from mmreid_jax.datasets.base import Dataset, Known
from mmreid_jax.datasets.disk import AlignedFolders
from mmreid_jax.drawn import drawings
from mmreid_jax.drawn.drawings import Drawing, DrawnSample, Size
from mmreid_jax.retrieval.protocols import MARKET

_RGB, _NIR = View("composite", (0, 256)), View("composite", (256, 512))

FOLDERS = AlignedFolders(
    name="rgbn300",
    folder="RGBN300",
    inner="rgbir",
    splits={"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"},
    images={"composite": ""},
    labels=rgbnt100.labels,
    file_form="PPPP_cCCCC_FFF.jpg",
    source="RGBN300 is given by its authors: see github.com/ttaalle/multi-modal-vehicle-Re-ID (README).",
    width=512,
)


def _full() -> list[DrawnSample]:
    # 25,200 training and 24,925 gallery images of 150 vehicles each; one gallery image in five makes 4,985 queries.
    train = [("train", 1 + i, drawings.spread(n, 8, i)) for i, n in enumerate(drawings.spread(25200, 150))]
    test = [("test", 151 + i, drawings.spread(n, 8, i)) for i, n in enumerate(drawings.spread(24925, 150))]
    return drawings.with_queries(rgbnt100.drawn_vehicles(train + test), rgbnt100.QUERY_STEP)


DATASET = Dataset(
    description="""\
300 vehicles seen by eight cameras in visible and near-infrared images, side by side in one file.

50,125 samples. Columns 0-255 of an image of 512 x 128 pixels (width x height) are visible, 256-511 near-infrared.""",
    citation="""@inproceedings{li2020multispectral,
  title = {Multi-Spectral Vehicle Re-Identification: A Challenge},
  author = {Li, Hongchao and Li, Chenglong and Zhu, Xianpeng and Zheng, Aihua and Luo, Bin},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  volume = {34},
  number = {7},
  pages = {11345--11353},
  year = {2020},
}""",
    name="rgbn300",
    folders=FOLDERS,
    published={
        "train": Known(unverified=(25200, 150)),
        "query": Known(unverified=(4985, 150)),
        "gallery": Known(unverified=(24925, 150)),
    },
    protocols=(MARKET,),
    composites={
        "two": {"rgb": _RGB, "nir": _NIR},
        # Parity: HTT feeds its three-modality model with (R, N, N).
        "reference": {"rgb": _RGB, "nir": _NIR, "tir": _NIR},
    },
    composite_key="rgbn300_third",
    drawing=Drawing(
        name="rgbn300",
        root=FOLDERS.folder,
        kind="vehicle",
        folders=FOLDERS.split_folders,
        modalities=("rgb", "nir"),
        small=rgbnt100.small,
        full=_full,
        default=Size(24, 16, 8),
        cameras=8,
        files=drawings.side_by_side,
        fixed_size=True,
    ),
)
