"""TFDS builder of RegDB: persons in visible and thermal images, with ten splits of its identities."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import ClassVar

import tensorflow_datasets as tfds

from mmreid_jax.errors import UserError
from tfds_builders import common

TRIALS = tuple(range(1, 11))
_FOLDERS: Mapping[str, str] = {"rgb": "Visible", "tir": "Thermal"}


def labels(stem: str) -> common.Labels:
    """Labels of ``<sex>_<side>_<v or t>_FFFFF_P``: identity P; the visible camera is 0, the thermal one 1."""
    letter, identity = common.match_name(r".*_([vt])_\d+_(\d+)", stem)
    return common.Labels(int(identity), int(letter == "t"), scene=0)


def list_split(layout: common.SingleLayout, root: pathlib.Path, split: str) -> list[common.Sample]:
    """The images of a split in the order of its lists, visible ones first; the identity is the folder's number.

    The class index of a training image is the second column of its line; the lists of the two modalities agree on it.

    Raises:
      UserError: a list is damaged or names files that are not there, or the lists of training disagree on a class.
    """
    trial = int(layout.name.rpartition("_")[2])
    samples = []
    for modality in layout.modalities_of(split):
        path = f"idx/{'train' if split == 'train' else 'test'}_{_FOLDERS[modality].lower()}_{trial}.txt"
        for file, label in common.listed_images(layout, root, path):
            parts = pathlib.PurePosixPath(file).parts
            if len(parts) != 3 or parts[0] != _FOLDERS[modality] or not parts[1].isdecimal():
                raise UserError(
                    f"{layout.name}: {root / path} names {file!r}, which is not {_FOLDERS[modality]}/<identity>/"
                    "<name>.bmp; get the list again"
                )
            samples.append(
                common.Sample(
                    file,
                    common.Labels(int(parts[1]), int(modality == "tir"), scene=0),
                    {"image": root / file},
                    label=label if split == "train" else -1,
                    modality=modality,
                )
            )
    if split == "train":
        common.check_class_indices(layout, root, samples)
    return samples


def layout(trial: int) -> common.SingleLayout:
    """The layout of one of the ten splits."""
    lists = tuple(
        f"idx/{part}_{folder.lower()}_{trial}.txt" for part in ("train", "test") for folder in _FOLDERS.values()
    )
    return common.SingleLayout(
        name=f"regdb/trial_{trial}",
        folder="RegDB",
        expected="{Visible,Thermal}/P/<name>_P.bmp and RegDB/idx/{train,test}_{visible,thermal}_{1,...,10}.txt",
        source="RegDB (DBPerson-Recog-DB1) is given by Dongguk University after a signed agreement: see "
        "dm.dongguk.edu/link.html.",
        required=(*_FOLDERS.values(), *lists),
        list_split=list_split,
        labels=labels,
        query="rgb",
        gallery="tir",
    )


LAYOUT = layout(1)


class Builder(common.SingleImagesBuilder):
    """412 persons with ten visible (rgb) and ten thermal (tir) images each, in ten random splits of the persons.

    Every config is one split: of 206 persons 2,060 images of each modality for training, of the other 206 persons 2,060
    visible images as query and 2,060 thermal ones as gallery. Results are means over the ten.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
        tfds.core.BuilderConfig(name=f"trial_{trial}", description=f"Split {trial} of the identities.")
        for trial in TRIALS
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = LAYOUT.instructions
    LAYOUT = LAYOUT
    CITATION = """@article{nguyen2017person,
  title = {Person Recognition System Based on a Combination of Body Images from Visible Light and Thermal Cameras},
  author = {Nguyen, Dat Tien and Hong, Hyung Gil and Kim, Ki Wan and Park, Kang Ryoung},
  journal = {Sensors},
  volume = {17},
  number = {3},
  pages = {605},
  year = {2017},
}"""

    @classmethod
    def layout_of(cls, config: str = "") -> common.SingleLayout:
        """The layout of ``trial_1`` ... ``trial_10``, "" for the first."""
        return layout(int(config.rpartition("_")[2])) if config else LAYOUT
