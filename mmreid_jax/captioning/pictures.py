"""The images to be captioned: of a folder, of an unpacked data set, or of a prepared one."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mmreid_jax.datasets as datasets
from mmreid_jax.data import images, listing
from mmreid_jax.data.captions import TextForm
from mmreid_jax.data.records import Records
from mmreid_jax.datasets import catalogue, disk
from mmreid_jax.errors import UserError, printable
from mmreid_jax.paths import path_of


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Images of one modality by name, with what a data set knows of them.

    Attributes:
      name: where they are from, for messages.
      modality: "" where nobody knows.
      files: [N] relative paths as the data set (or the folder) writes them; distinct.
      identity: int [N], -1 where nobody knows.
      training: bool [N], whether the image is in the training split.
      read: position -> the bytes of the image file.
      unusable: name of a file in the folder -> why it is not among the images.
    """

    name: str
    modality: str
    files: Sequence[str]
    identity: np.ndarray
    training: np.ndarray
    read: Callable[[int], bytes]
    unusable: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files)

    def image(self, position: int) -> Any:
        """The image as PIL reads it, in three channels.

        Raises:
          BrokenImage: the file cannot be read or decoded.
        """
        from PIL import Image

        where = f"{printable(self.name)}: {printable(self.files[position])}"
        return Image.fromarray(images.decode(self.read(position), where))


def of_folder(path: str | os.PathLike[str]) -> Pictures:
    """All images below a folder, sorted by their paths in it.

    Raises:
      UserError: there is no such folder, or no image in it.
    """
    root = path_of(path)
    if not root.is_dir():
        raise UserError(f"there is no folder {printable(root)}; give a folder of images")
    listed = listing.list_images(root, below=True)
    if not listed.files:
        what = f"; {listing.in_words(listed.unusable)}" if listed.unusable else f" ({', '.join(listing.SUFFIXES)})"
        raise UserError(f"{printable(root)} holds no image that can be used{what}")
    return dataclasses.replace(of_files(root, listed.files), unusable=listed.unusable)


def of_files(root: Path, files: Sequence[str]) -> Pictures:
    """The images with these paths below a folder."""
    nobody = np.full(len(files), -1)
    return Pictures(
        str(root), "", files, nobody, nobody == 0, lambda position: listing.read_file(root / files[position])
    )


def of_data_set(dataset: str, place: str | os.PathLike[str], modality: str, *, prepared: bool = False) -> Pictures:
    """All images of one modality of a visible-infrared data set, training images first, in the order of its lists.

    Args:
      dataset: ``sysu_mm01``, ``regdb`` or ``llcm``; the splits of RegDB hold the same images.
      place: the unpacked data set's folder or its parent; the folder of prepared data sets where `prepared`.
      modality: ``rgb`` or ``ir``.
      prepared: whether to take the images out of the records.

    Raises:
      UserError: it is another data set, it is not there, or it is damaged.
    """
    folders = datasets.get(dataset).folders
    if not isinstance(folders, disk.SingleFolders):
        raise UserError(f"{dataset} is no visible-infrared data set; caption its folder of images with --images")
    wanted = "rgb" if modality == "rgb" else folders.modalities[1]
    splits = ["train", *(split for split in ("query", "gallery") if wanted in folders.modalities_of(split))]
    rows: list[tuple[str, int, bool, Callable[[], bytes]]] = []
    if prepared:
        for split in splits:
            table = catalogue.load(dataset, split, place).of_modality(wanted)
            image = table.views[wanted].image
            for row, (file, identity) in enumerate(zip(table.file.tolist(), table.identity.tolist(), strict=True)):
                rows.append((file, identity, split == "train", functools.partial(_stored, table, row, image)))
    else:
        root = root_of(dataset, place)
        for split in splits:
            for sample in disk.list_samples(folders, root, split):
                if sample.modality == wanted:
                    (path,) = sample.images.values()
                    read = functools.partial(listing.read_file, path)
                    rows.append((sample.file, sample.labels.identity, split == "train", read))
    files, identity, training, reads = zip(*rows, strict=True)
    return Pictures(dataset, wanted, files, np.array(identity), np.array(training), lambda position: reads[position]())


def text_form(dataset: str) -> TextForm:
    """How the texts of a visible-infrared data set are written; UserError where it has none."""
    form = datasets.get(dataset).captions
    if form is None or form.aligned:
        forms = {name: datasets.get(name).captions for name in datasets.names()}
        known = ", ".join(name for name, each in forms.items() if each and not each.aligned)
        raise UserError(f"texts of {dataset!r} have no place; the data sets that have are {known}")
    return form


def root_of(dataset: str, place: str | os.PathLike[str]) -> Path:
    """The folder of an unpacked data set, from it or its parent; UserError naming what it lacks."""
    return disk.find_root(datasets.get(dataset).folders, place)


def _stored(table: Records, row: int, image: str) -> bytes:
    return table.encoded([row])[0][image]
