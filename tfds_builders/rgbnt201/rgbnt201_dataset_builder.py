"""TFDS builder of RGBNT201: persons in aligned visible, near-infrared and thermal images."""

from __future__ import annotations

from typing import ClassVar

import tensorflow_datasets as tfds

from tfds_builders import common


def labels(stem: str) -> common.Labels:
    """Labels of ``PPPPPP_camC_T_FF``: identity, camera 1 to 9 stored from 0, time id T as the scene."""
    identity, camera, time = common.match_name(r"(\d+)_cam([1-9])_(\d+)(?:_.*)?", stem)
    return common.Labels(int(identity), int(camera) - 1, scene=int(time))


LAYOUT = common.Layout(
    name="rgbnt201",
    folder="RGBNT201",
    splits={"train": "train_171", "query": "test", "gallery": "test"},
    images={"rgb": "RGB", "nir": "NI", "tir": "TI"},
    labels=labels,
    file_form="PPPPPP_camC_T_FF.jpg",
    source="RGBNT201 is given by its authors: see github.com/ziwang1121/IEEE (README, section Dataset).",
)


class Builder(common.AlignedImagesBuilder):
    """201 persons seen by four cameras in aligned visible (rgb), near-infrared (nir) and thermal-infrared (tir) images.

    4,787 samples: 3,951 of 171 persons for training, 836 of 30 persons for the test. Query and gallery are these 836.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = LAYOUT.instructions
    LAYOUT = LAYOUT
    CITATION = """@inproceedings{zheng2021robust,
  title = {Robust Multi-Modality Person Re-identification},
  author = {Zheng, Aihua and Wang, Zi and Chen, Zihan and Li, Chenglong and Tang, Jin},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  volume = {35},
  number = {4},
  pages = {3529--3537},
  year = {2021},
}"""
