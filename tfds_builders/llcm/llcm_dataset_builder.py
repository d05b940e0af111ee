"""TFDS builder of LLCM: persons in visible and near-infrared images of nine cameras, taken in low light."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import ClassVar

import tensorflow_datasets as tfds

from mmreid_jax.errors import UserError
from tfds_builders import common

CAMERAS: Mapping[str, tuple[int, ...]] = {"rgb": tuple(range(1, 10)), "nir": (1, 2, 4, 5, 6, 7, 8, 9)}
"""Modality -> its cameras; camera 3 takes no infrared images."""

_FOLDERS: Mapping[str, str] = {"rgb": "vis", "nir": "nir"}


def labels(stem: str) -> common.Labels:
    """Labels of ``PPPP_cCC_sTTTTTT_fFFFF_<vis or nir>``: identity, and camera 1 to 9 stored from 0."""
    identity, camera = common.match_name(r"(\d+)_c0([1-9])_s\d+_f\d+_(?:vis|nir)", stem)
    return common.Labels(int(identity), int(camera) - 1, scene=0)


def list_split(layout: common.SingleLayout, root: pathlib.Path, split: str) -> list[common.Sample]:
    """The images of a split: of training in the order of its lists, of the test by identity, camera and file.

    Test images are read from the copies sorted by camera (``test_nir/cam1/PPPP/``), as the references do.

    Raises:
      UserError: a list is damaged, names files that are not there or of another form, or test images are missing.
    """
    if split == "train":
        samples = [
            _sample(layout, root, file, label, modality)
            for modality in layout.modalities
            for file, label in common.listed_images(layout, root, f"idx/train_{_FOLDERS[modality]}.txt")
        ]
        common.check_class_indices(layout, root, samples)
        return samples
    (modality,) = layout.modalities_of(split)
    folder = f"test_{_FOLDERS[modality]}"
    samples = [
        common.Sample(
            f"{folder}/cam{camera}/{identity:04d}/{name}",
            common.Labels(identity, camera - 1, scene=0),
            {"image": root / folder / f"cam{camera}" / f"{identity:04d}" / name},
            modality=modality,
        )
        for identity in common.read_identities(root / "idx" / "test_id.txt")
        for camera in CAMERAS[modality]
        for name in common.images_in(root / folder / f"cam{camera}" / f"{identity:04d}")
    ]
    listed = [line.split()[0] for line in common.read_lines(root / "idx" / f"{folder}.txt")]
    if len(samples) < len(listed):
        there = {pathlib.PurePosixPath(sample.file).name for sample in samples}
        absent = [file for file in listed if pathlib.PurePosixPath(file).name not in there]
        raise UserError(
            f"llcm: {root / folder} holds only {len(samples)} of the {len(listed)} images that idx/{folder}.txt lists "
            f"(missing: {common.few(absent) or 'unknown'}); complete the copy"
        )
    return samples


def _sample(layout: common.SingleLayout, root: pathlib.Path, file: str, label: int, modality: str) -> common.Sample:
    parts = pathlib.PurePosixPath(file).parts
    try:
        if len(parts) != 3 or parts[0] != _FOLDERS[modality]:
            raise ValueError(file)
        found = labels(parts[2].rpartition(".")[0])
        if found.identity != int(parts[1]):
            raise ValueError(file)
    except ValueError:
        raise UserError(
            f"{layout.name}: {root / 'idx'} names {file!r}, which is not {_FOLDERS[modality]}/PPPP/"
            f"PPPP_cCC_sTTTTTT_fFFFF_{_FOLDERS[modality]}.jpg; get the lists again"
        ) from None
    return common.Sample(file, found, {"image": root / file}, label=label, modality=modality)


LAYOUT = common.SingleLayout(
    name="llcm",
    folder="LLCM",
    expected="{vis,nir}/PPPP/PPPP_cCC_sTTTTTT_fFFFF_{vis,nir}.jpg, LLCM/{test_vis,test_nir}/camC/PPPP/ and "
    "LLCM/idx/{train_vis,train_nir,test_vis,test_nir,test_id}.txt",
    source="LLCM is given by its authors after a signed agreement: see github.com/ZYK100/LLCM.",
    required=(
        "vis",
        "nir",
        "test_vis",
        "test_nir",
        *(f"idx/{name}.txt" for name in ("train_vis", "train_nir", "test_vis", "test_nir", "test_id")),
    ),
    list_split=list_split,
    labels=labels,
    query="nir",
    gallery="rgb",
)


class Builder(common.SingleImagesBuilder):
    """1,064 persons in visible (rgb) and near-infrared (nir) images of nine cameras, taken in low light.

    46,767 images: 16,946 visible and 13,975 infrared ones of 713 persons for training, and of 351 persons for the test
    7,166 infrared ones as query and 8,680 visible ones, from which the trials of a protocol draw galleries.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = LAYOUT.instructions
    LAYOUT = LAYOUT
    CITATION = """@inproceedings{zhang2023diverse,
  title = {Diverse Embedding Expansion Network and Low-Light Cross-Modality Benchmark for Visible-Infrared Person
           Re-Identification},
  author = {Zhang, Yukang and Wang, Hanzi},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages = {2153--2162},
  year = {2023},
}"""
