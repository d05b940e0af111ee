"""What the builders share: the description of a data set's folders, the listing of its samples, and the builder.

A data set whose samples are aligned images of several modalities is described by one `Layout`; everything else
(finding the folders, pairing the modalities, reading labels off file names, writing the records) follows from it.
A data set of another kind, for example one whose images are not aligned, writes its own builder and can still use
`Labels`, `match_name` and `few`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from mmreid_jax.errors import UserError

SOURCE_FILE = "source.json"
"""Name of the file beside the prepared records that says which image files they were made from."""

DRAWN_FILE = "drawn.json"
"""Name of the marker in the folder of a drawn data set; it holds the parameters of the drawing."""

_IMAGE_SUFFIXES = (".jpg", ".jpeg")


class Labels(NamedTuple):
    """What a file name says of a sample: identity as written, camera counted from 0, scene (or time) id."""

    identity: int
    camera: int
    scene: int


@dataclasses.dataclass(frozen=True)
class Sample:
    """One sample on disk.

    Attributes:
      file: base name of its images.
      labels: what the name says.
      images: stored image name -> path.
    """

    file: str
    labels: Labels
    images: Mapping[str, pathlib.Path]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a data set keeps its images and what their names mean.

    Attributes:
      name: name of the data set in this library.
      folder: name of the data set's folder as distributed.
      splits: split -> folder.
      images: stored image name -> folder of that image inside a split, "" when the files lie in the split folder.
      labels: base name without suffix -> labels; raises ValueError when the name does not have the form `file_form`.
      file_form: the form of the names, for messages.
      source: whom to ask for the data.
      inner: a folder between `folder` and the splits that some copies have and others lack, "" for none.
      folder_per_identity: True when a split holds one folder per identity, and these hold the image folders.
      width: width in pixels of side-by-side images, None for images of one modality.
    """

    name: str
    folder: str
    splits: Mapping[str, str]
    images: Mapping[str, str]
    labels: Callable[[str], Labels]
    file_form: str
    source: str
    inner: str = ""
    folder_per_identity: bool = False
    width: int | None = None

    @property
    def tree(self) -> str:
        """The expected folders in one line, as in ``RGBNT201/{train_171,test}/{RGB,NI,TI}/PPPPPP_camC_T_FF.jpg``."""
        image_folders = [folder for folder in self.images.values() if folder]
        parts = [
            self.folder,
            self.inner,
            _alternatives(list(dict.fromkeys(self.splits.values()))),
            "<identity>" if self.folder_per_identity else "",
            _alternatives(image_folders) if image_folders else "",
            self.file_form,
        ]
        return "/".join(part for part in parts if part)

    @property
    def instructions(self) -> str:
        """How to get the data and where to put them, in one sentence."""
        return f"{self.source} Unpack so that the tree is {self.tree}."

    @property
    def without_data(self) -> str:
        """How to go on without the data, in one sentence."""
        return (
            f"Without the data, run on drawn data: python -m mmreid_jax.synthesize --dataset {self.name} --out DIR, "
            "or --config.data.drawn=True."
        )


def match_name(pattern: str, stem: str) -> tuple[str, ...]:
    """The groups of `pattern` in the whole of a base name without suffix; ValueError if it does not match."""
    found = re.fullmatch(pattern, stem, re.ASCII)
    if not found:
        raise ValueError(f"{stem!r} does not match {pattern!r}")
    return found.groups()


def vehicle_labels(stem: str) -> Labels:
    """Labels of ``PPPP_cCCCC_FFF``: identity 1 to 600 and camera 1 to 8, stored from 0 (RGBNT100, RGBN300)."""
    identity, camera = (int(text) for text in match_name(r"(\d+)_c(\d+)_.*", stem))
    if not (1 <= identity <= 600 and 1 <= camera <= 8):
        raise ValueError(f"{stem!r}: identity {identity} is not in 1..600 or camera {camera} is not in 1..8")
    return Labels(identity, camera - 1, scene=0)


def few(names: Sequence[str], limit: int = 5) -> str:
    """The first `limit` of `names`, and how many more there are."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def find_root(layout: Layout, manual_dir: str | os.PathLike[str]) -> pathlib.Path:
    """The folder that holds the split folders of a data set.

    Args:
      layout: the data set.
      manual_dir: the data set's folder, or its parent.

    Raises:
      UserError: a split or modality folder is missing; names them all.
    """
    given = pathlib.Path(manual_dir).expanduser()
    candidates = [given / layout.folder / layout.inner, given / layout.folder, given / layout.inner, given]
    missing = {candidate: _missing_folders(layout, candidate) for candidate in dict.fromkeys(candidates)}
    root = min(missing, key=lambda candidate: len(missing[candidate]))
    if not missing[root]:
        return root
    absent = [str(folder.relative_to(given)) for folder in missing[root]]
    state = few(absent, limit=9) if given.is_dir() else f"all of it ({given} is not a folder)"
    raise UserError(
        f"{layout.name}: missing under {given.absolute()}: {state}. Expected tree: {layout.tree}. "
        f"{layout.source} {layout.without_data}"
    )


def list_samples(layout: Layout, root: pathlib.Path, split: str) -> list[Sample]:
    """The samples of a split, sorted by file name.

    Raises:
      UserError: the split is empty, an image lacks its counterpart in another modality, or a name has the wrong form.
    """
    folder = root / layout.splits[split]
    stored = {image: _image_files(layout, folder, sub) for image, sub in layout.images.items()}
    everything = sorted(set().union(*stored.values()), key=lambda key: (key[1], key[0]))
    if not everything:
        raise UserError(f"{layout.name}: no images in {folder}; expected tree: {layout.tree}. {layout.source}")
    for image, files in stored.items():
        alone = [str(next(s[key] for s in stored.values() if key in s)) for key in everything if key not in files]
        if alone:
            raise UserError(
                f"{layout.name}: {len(alone)} of {len(everything)} samples in {folder} have no {image} image "
                f"(folder {layout.images[image]}) beside {few(alone)}; complete the copy or remove these files"
            )
    return [
        Sample(name, labels, {image: files[parent, name] for image, files in stored.items()})
        for (parent, name), labels in zip(everything, _read_labels(layout, folder, everything), strict=True)
    ]


def describe_source(layout: Layout, root: pathlib.Path, samples: Iterable[Sample]) -> dict[str, Any]:
    """Which files a data set is made of.

    The fingerprint changes when a file is added, removed, renamed or changes its size, and when the parameters of a
    drawn data set change; it does not change when the folder moves.

    Returns:
      ``fingerprint``, ``folder``, ``files`` (their number), ``bytes`` and ``drawn`` (the drawing's parameters or None).
    """
    paths = {path for sample in samples for path in sample.images.values()}
    sizes = {path.relative_to(root).as_posix(): path.stat().st_size for path in paths}
    digest = hashlib.sha256()
    for name in sorted(sizes):
        digest.update(f"{name}\t{sizes[name]}\n".encode())
    drawn = read_drawn(layout, root)
    digest.update(json.dumps(drawn, sort_keys=True).encode())
    return {
        "fingerprint": digest.hexdigest(),
        "folder": str(root.absolute()),
        "files": len(sizes),
        "bytes": sum(sizes.values()),
        "drawn": drawn,
    }


def read_drawn(layout: Layout, root: pathlib.Path) -> dict[str, Any] | None:
    """The parameters of a drawn data set, None for a real one."""
    for folder in (root, root.parent) if root.name == layout.inner else (root,):
        marker = folder / DRAWN_FILE
        if marker.is_file():
            try:
                return {"parameters": json.loads(marker.read_text())}
            except ValueError as error:
                raise UserError(f"{marker} is not valid JSON ({error}); draw the data again") from None
    return None


class AlignedImagesBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Builder of a data set whose samples are aligned images of several modalities.

    Images are stored byte for byte as they lie on disk. Records lie in the order of the sorted file names. The class
    docstring is the description of the data set.

    Attributes:
      LAYOUT: the data set's folders and names.
      CITATION: BibTeX.
      progress: wraps the list of samples of a split while it is written, for a progress bar.
    """

    LAYOUT: ClassVar[Layout]
    CITATION: ClassVar[str]

    progress: Callable[[Sequence[Sample]], Iterable[Sample]] = staticmethod(iter)

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
        features = {
            "identity": tfds.features.Scalar(np.int32),
            "camera": tfds.features.Scalar(np.int32),
            "scene": tfds.features.Scalar(np.int32),
            "file": tfds.features.Text(),
            **dict.fromkeys(self.LAYOUT.images, image),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=inspect.getdoc(type(self)),
            citation=self.CITATION,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        root = find_root(self.LAYOUT, dl_manager.manual_dir)
        samples = {split: list_samples(self.LAYOUT, root, split) for split in self.LAYOUT.splits}
        source = describe_source(self.LAYOUT, root, [sample for listed in samples.values() for sample in listed])
        # At this time data_path is the unfinished folder, so records and source become visible in one rename.
        (pathlib.Path(self.data_path) / SOURCE_FILE).write_text(json.dumps(source, indent=1))
        return {split: self._generate_examples(listed) for split, listed in samples.items()}

    def _generate_examples(self, samples: Sequence[Sample]) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, sample in enumerate(self.progress(samples)):
            yield key, {"file": sample.file, **sample.labels._asdict(), **sample.images}


def _alternatives(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else "{" + ",".join(names) + "}"


def _missing_folders(layout: Layout, root: pathlib.Path) -> list[pathlib.Path]:
    """The split and modality folders that `root` lacks; below identity folders nothing is looked up."""
    subfolders = [""] if layout.folder_per_identity else list(layout.images.values())
    wanted = [root / split / sub for split in layout.splits.values() for sub in subfolders]
    return [folder for folder in dict.fromkeys(wanted) if not folder.is_dir()]


def _image_files(layout: Layout, folder: pathlib.Path, subfolder: str) -> dict[tuple[str, str], pathlib.Path]:
    """(identity folder or "", base name) -> path of the images of one modality of a split."""
    parents = sorted(path for path in folder.iterdir() if path.is_dir()) if layout.folder_per_identity else [folder]
    found = {}
    for parent in parents:
        place = parent / subfolder
        if not place.is_dir():
            continue
        for name in os.listdir(place):
            if name.lower().endswith(_IMAGE_SUFFIXES) and not name.startswith("."):
                found[parent.name if layout.folder_per_identity else "", name] = place / name
    return found


def _read_labels(layout: Layout, folder: pathlib.Path, keys: Sequence[tuple[str, str]]) -> list[Labels]:
    labels, wrong = [], []
    for _, name in keys:
        try:
            labels.append(layout.labels(pathlib.PurePath(name).stem))
        except ValueError:
            wrong.append(name)
    if wrong:
        raise UserError(
            f"{layout.name}: {len(wrong)} of {len(keys)} files in {folder} do not have a name of the form "
            f"{layout.file_form}: {few(wrong)}; rename or remove them"
        )
    return labels
