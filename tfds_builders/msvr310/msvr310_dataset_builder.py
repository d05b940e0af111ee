"""TFDS builder of MSVR310: vehicles in visible, near-infrared and thermal images, with long time spans."""

from __future__ import annotations

from typing import ClassVar

import tensorflow_datasets as tfds

from tfds_builders import common


def labels(stem: str) -> common.Labels:
    """Labels of ``IIII_sSSS_vV_FFF``: identity, view 0 to 7 as the camera, time span as the scene."""
    identity, scene, view = common.match_name(r"(\d{4})_s(\d{3})_v([0-7])(?:_.*)?", stem)
    return common.Labels(int(identity), int(view), int(scene))


LAYOUT = common.Layout(
    name="msvr310",
    folder="MSVR310",
    splits={"train": "bounding_box_train", "query": "query3", "gallery": "bounding_box_test"},
    images={"rgb": "vis", "nir": "ni", "tir": "th"},
    labels=labels,
    file_form="IIII_sSSS_vV_FFF.jpg",
    source="MSVR310 is given by its authors (A. Zheng, Anhui University): see aihuazheng.github.io.",
    folder_per_identity=True,
)


class Builder(common.AlignedImagesBuilder):
    """310 vehicles in aligned visible (rgb), near-infrared (nir) and thermal-infrared (tir) images from eight views.

    2,087 samples. The scene is the time span; a query is not compared with samples of its identity and scene.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = LAYOUT.instructions
    LAYOUT = LAYOUT
    CITATION = """@article{zheng2023cross,
  title = {Cross-directional consistency network with adaptive layer normalization for multi-spectral vehicle
           re-identification and a high-quality benchmark},
  author = {Zheng, Aihua and Zhu, Xianpeng and Ma, Zhiqi and Li, Chenglong and Tang, Jin and Ma, Jixin},
  journal = {Information Fusion},
  volume = {100},
  year = {2023},
}"""
