"""TFDS builder of RGBNT100: vehicles in visible, near-infrared and thermal images side by side."""

from __future__ import annotations

from typing import ClassVar

import tensorflow_datasets as tfds

from tfds_builders import common

LAYOUT = common.Layout(
    name="rgbnt100",
    folder="RGBNT100",
    inner="rgbir",
    splits={"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"},
    images={"composite": ""},
    labels=common.vehicle_labels,
    file_form="PPPP_cCCCC_FFF.jpg",
    source="RGBNT100 is given by its authors: see github.com/ttaalle/multi-modal-vehicle-Re-ID (README).",
    width=768,
)


class Builder(common.AlignedImagesBuilder):
    """100 vehicles seen by eight cameras in visible, near- and thermal-infrared images, side by side in one file.

    17,250 samples. Columns 0-255 of an image of 768 x 128 pixels (width x height) are visible, 256-511 near-infrared,
    512-767 thermal-infrared. The query files are a part of the gallery files.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = LAYOUT.instructions
    LAYOUT = LAYOUT
    CITATION = """@inproceedings{li2020multispectral,
  title = {Multi-Spectral Vehicle Re-Identification: A Challenge},
  author = {Li, Hongchao and Li, Chenglong and Zhu, Xianpeng and Zheng, Aihua and Luo, Bin},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  volume = {34},
  number = {7},
  pages = {11345--11353},
  year = {2020},
}"""
