"""A plain folder of images as a records table: one's own data, without a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import mmreid_jax.datasets as datasets
from mmreid_jax.data.records import Records, View
from mmreid_jax.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
FOLDER_NAMES = {
    "rgb": ("rgb", "vis", "visible"),
    "nir": ("nir", "ni", "infrared", "ir"),
    "tir": ("tir", "ti", "th", "thermal"),
}


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """Image files on disk, by modality.

    Attributes:
      folders: stored image name -> folder.
      names: file names, equal in every folder.
    """

    folders: dict[str, Path]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def encoded(self, indices: Sequence[int]) -> list[dict[str, bytes]]:
        """See `mmreid_jax.data.records.ImageSource`."""
        return [{key: (place / self.names[i]).read_bytes() for key, place in self.folders.items()} for i in indices]


def open_folder(
    path: str | Path, modalities: Sequence[str], modality: str | None = None, *, one: bool = False
) -> tuple[Records, tuple[str, ...]]:
    """The images of a folder.

    Either the images lie in one subfolder per modality (``rgb``, ``nir``, ``tir`` and the names that data sets use)
    under the same file names; or in the folder itself, and are then of the modality whose name it has, else visible.

    Args:
      path: the folder.
      modalities: what the model expects, in its order.
      modality: the one to take; None: all that there are.
      one: the model sees one modality at a time.

    Returns:
      (table with identity -1, camera 0, modalities that the folder does not have).

    Raises:
      UserError: there is no such folder or no image in it, the modalities hold different files or are more than the
        model sees, or it does not know `modality`.
    """
    root = Path(path)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; give a folder of images")
    subfolders = {entry.name.lower(): entry for entry in sorted(root.iterdir()) if entry.is_dir()}
    if modality is not None and modality not in modalities:
        raise UserError(f"the model does not know the modality {modality!r}; it sees {', '.join(modalities)}")
    folders = {}
    for known in modalities:
        matching = [subfolders[name] for name in FOLDER_NAMES.get(known, (known,)) if name in subfolders]
        if matching and modality in (None, known):
            folders[known] = matching[0]
    if not folders:
        named = [known for known in modalities if root.resolve().name.lower() in FOLDER_NAMES.get(known, (known,))]
        folders = {modality or (named or modalities)[0]: root}
    if one and len(folders) > 1:
        raise UserError(
            f"{root} holds {' and '.join(folders)}, but this model sees one modality at a time; give one of its folders"
        )
    files = {modality: _images(place) for modality, place in folders.items()}
    first, *others = files
    if not files[first]:
        raise UserError(f"{folders[first]} holds no image ({', '.join(SUFFIXES)})")
    for other in others:
        differing = sorted(set(files[first]) ^ set(files[other]))
        if differing:
            raise UserError(
                f"{folders[first]} and {folders[other]} must hold the same file names, one per sample; "
                f"{len(differing)} differ, such as {differing[0]}"
            )
    names = tuple(files[first])
    count = len(names)
    # An absent modality points at an image that is there; zeros replace its pixels before the network sees them.
    views = {known: View(known if known in folders else first) for known in modalities}
    table = Records(
        name=str(root),
        identity=np.full(count, -1, np.int32),
        camera=np.zeros(count, np.int32),
        scene=np.zeros(count, np.int32),
        file=np.array(names),
        views=views,
        source=FolderSource(folders, names),
        rows=np.arange(count),
    )
    return table, tuple(known for known in modalities if known not in folders)


def with_labels(table: Records, dataset: str) -> Records | None:
    """The table with identity, camera and scene read off its file names as `dataset` writes them; None where one fails.

    Raises:
      UserError: there is no such data set.
    """
    parse = datasets.get(dataset).folders.labels
    try:
        labels = [parse(Path(name).stem) for name in table.file.tolist()]
    except ValueError:
        return None
    identity, camera, scene = np.array(labels, np.int32).T
    return dataclasses.replace(table, identity=identity, camera=camera, scene=scene)


def _images(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES)
