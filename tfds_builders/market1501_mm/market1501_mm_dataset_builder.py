"""TFDS builder of Market1501-MM: Market-1501 with made near-infrared and thermal images."""

from __future__ import annotations

from typing import ClassVar

import tensorflow_datasets as tfds

from tfds_builders import common


def labels(stem: str) -> common.Labels:
    """Labels of ``PPPP_cCsS_FFFFFF_BB``: identity (-1 junk, 0 distractor), camera stored from 0, scene.

    The scene is the second digit of BB: HTT reads it as a time id.
    """
    identity, camera, scene = common.match_name(r"(-1|\d+)_c([1-6])s\d_\d+_\d(\d)(?:\D.*)?", stem)
    return common.Labels(int(identity), int(camera) - 1, int(scene))


LAYOUT = common.Layout(
    name="market1501_mm",
    folder="market1501_to_RGBNT201_dark",
    splits={"train": "train", "query": "query", "gallery": "gallery"},
    images={"rgb": "RGB", "nir": "NI", "tir": "TI"},
    labels=labels,
    file_form="PPPP_cCsS_FFFFFF_BB.jpg",
    source="Market1501-MM is made by the authors of IEEE (AAAI 2022): ask them, see github.com/ziwang1121/IEEE.",
)


class Builder(common.AlignedImagesBuilder):
    """Market-1501 with three images a sample, of which two are made from the first.

    rgb is the image of Market-1501 darkened by 60 per cent, nir its grey version, tir made from it by a CycleGAN.
    Identity -1 marks junk boxes, identity 0 distractors.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = LAYOUT.instructions
    LAYOUT = LAYOUT
    CITATION = """@inproceedings{wang2022interact,
  title = {Interact, Embed, and EnlargE: Boosting Modality-Specific Representations for Multi-Modal Person
           Re-identification},
  author = {Wang, Zi and Li, Chenglong and Zheng, Aihua and He, Ran and Tang, Jin},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  volume = {36},
  number = {3},
  pages = {2633--2641},
  year = {2022},
}
@inproceedings{zheng2015scalable,
  title = {Scalable Person Re-identification: A Benchmark},
  author = {Zheng, Liang and Shen, Liyue and Tian, Lu and Wang, Shengjin and Wang, Jingdong and Tian, Qi},
  booktitle = {Proceedings of the IEEE International Conference on Computer Vision},
  pages = {1116--1124},
  year = {2015},
}"""
