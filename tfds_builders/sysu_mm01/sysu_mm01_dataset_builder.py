"""TFDS builder of SYSU-MM01: persons in visible and near-infrared images of different cameras."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import ClassVar

import tensorflow_datasets as tfds

from mmreid_jax.errors import UserError
from tfds_builders import common

CAMERAS: Mapping[str, tuple[int, ...]] = {"rgb": (1, 2, 4, 5), "nir": (3, 6)}
"""Modality -> its cameras, in the order in which the references list them."""

_LISTS = {"train": ("train", "val"), "query": ("test",), "gallery": ("test",)}


def labels(stem: str) -> common.Labels:
    """Identity and camera are folders of SYSU-MM01, so a base name alone says neither."""
    raise ValueError(f"{stem!r} says neither identity nor camera")


def identities(root: pathlib.Path) -> dict[str, list[int]]:
    """List (``train``, ``val``, ``test``) -> its identities, ascending.

    Raises:
      UserError: a list is damaged, or a test identity is in another list as well.
    """
    lists = {name: common.read_identities(root / "exp" / f"{name}_id.txt") for name in ("train", "val", "test")}
    both = sorted({*lists["train"], *lists["val"]}.intersection(lists["test"]))
    if both:
        shown = common.few([str(identity) for identity in both])
        raise UserError(
            f"sysu_mm01: {len(both)} identities of {root / 'exp' / 'test_id.txt'} are also in train_id.txt or "
            f"val_id.txt ({shown}); get the lists again"
        )
    return lists


def list_split(layout: common.SingleLayout, root: pathlib.Path, split: str) -> list[common.Sample]:
    """The images of a split as the references list them: modality, identity, camera, file.

    The class index of a training identity is its rank among those of train and val.

    Raises:
      UserError: a list is damaged, or a listed identity has no image (for training: of one of the modalities).
    """
    lists = identities(root)
    chosen = sorted({identity for name in _LISTS[split] for identity in lists[name]})
    modalities = layout.modalities_of(split)
    files = {
        (camera, identity): common.images_in(root / f"cam{camera}" / f"{identity:04d}")
        for camera in range(1, 7)
        for identity in chosen
    }
    # A test identity need not have been seen by both kinds of cameras.
    needed = [CAMERAS[modality] for modality in modalities] if split == "train" else [tuple(range(1, 7))]
    absent = [
        f"{identity:04d}"
        for identity in chosen
        if not all(any(files[camera, identity] for camera in cameras) for cameras in needed)
    ]
    if absent:
        cameras = " or no image in ".join(", ".join(f"cam{camera}" for camera in some) for some in needed)
        raise UserError(
            f"sysu_mm01: {len(absent)} of {len(chosen)} identities that {root / 'exp'} lists for {split} have no image "
            f"in {cameras}: {common.few(absent)}; complete the copy"
        )
    return [
        common.Sample(
            f"cam{camera}/{identity:04d}/{name}",
            common.Labels(identity, camera - 1, scene=0),
            {"image": root / f"cam{camera}" / f"{identity:04d}" / name},
            label=rank if split == "train" else -1,
            modality=modality,
        )
        for modality in modalities
        for rank, identity in enumerate(chosen)
        for camera in CAMERAS[modality]
        for name in files[camera, identity]
    ]


LAYOUT = common.SingleLayout(
    name="sysu_mm01",
    folder="SYSU-MM01",
    expected="{cam1,...,cam6}/PPPP/NNNN.jpg and SYSU-MM01/exp/{train,val,test}_id.txt",
    source="SYSU-MM01 is given by its authors after a signed agreement: see github.com/wuancong/SYSU-MM01.",
    required=(
        *(f"cam{camera}" for camera in range(1, 7)),
        *(f"exp/{name}_id.txt" for name in ("train", "val", "test")),
    ),
    list_split=list_split,
    labels=labels,
    query="nir",
    gallery="rgb",
)


class Builder(common.SingleImagesBuilder):
    """491 persons seen by four visible cameras (rgb: 1, 2, 4, 5) and two near-infrared cameras (nir: 3, 6).

    22,258 visible and 11,909 infrared images of 395 persons for training (train and val); of 96 persons for the test
    3,803 infrared images as query, and 6,775 visible ones from which the trials of a protocol draw their galleries.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = LAYOUT.instructions
    LAYOUT = LAYOUT
    CITATION = """@inproceedings{wu2017rgb,
  title = {{RGB}-Infrared Cross-Modality Person Re-Identification},
  author = {Wu, Ancong and Zheng, Wei-Shi and Yu, Hong-Xing and Gong, Shaogang and Lai, Jianhuang},
  booktitle = {Proceedings of the IEEE International Conference on Computer Vision},
  pages = {5380--5389},
  year = {2017},
}"""
