"""What a data set that can be drawn says: which samples it holds, and where and under what names these lie on disk.

A `Drawing` describes one data set. A sample may become several files (one a modality), one file with the modalities
side by side, or the same file in two folders; `Drawing.files` says which. In a visible-infrared data set a sample is
one image of one modality (`DrawnSample.modality`): nobody is seen by both kinds of cameras at the same moment.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from mmreid_jax.data import aligned_captions, captions
from mmreid_jax.data.captions import TextForm
from mmreid_jax.drawn.attributes import CAMPUS, NATIVE_SIZE, Kind, Scenario

JUNK, DISTRACTOR = -1, 0
"""Identities that are no person: badly cut boxes, and boxes without anybody."""

SINGLE = {"train": "", "query": "", "gallery": ""}
"""Folders of the splits of a visible-infrared data set, whose lists tell them apart."""


@dataclasses.dataclass(frozen=True)
class DrawnSample:
    """One moment of one identity, seen by all modalities or by one.

    Attributes:
      splits: names of the splits that hold it; a query that is also in the gallery has both.
      file: base name.
      identity: as the data set numbers it.
      camera: from 1.
      scene: time id or scene id, 0 where the data set has none.
      frame: number within identity, camera and scene.
      view: side from which a vehicle is seen, 0...7, if that is not the camera's.
      modality: the only one that sees this moment, None for all.
      light: ``day``, ``dusk`` or ``night``, if it must be that.
      place: camera whose place this one shares, if not a place of its own.
      heading: ``towards`` the camera, ``away`` from it or ``sideways``, if the name says so.
    """

    splits: tuple[str, ...]
    file: str
    identity: int
    camera: int
    scene: int = 0
    frame: int = 0
    view: int | None = None
    modality: str | None = None
    light: str | None = None
    place: int | None = None
    heading: str | None = None

    @property
    def trained_on(self) -> bool:
        """Whether it belongs to the training split."""
        return "train" in self.splits

    @property
    def seen_by(self) -> int:
        """The camera as readers of the data set count it, from 0: in MSVR310 that is the view."""
        return self.camera - 1 if self.view is None else self.view


@dataclasses.dataclass(frozen=True)
class Size:
    """How large a small set is: identities in each of training and test, images of each, and cameras."""

    identities: int
    images_per_identity: int
    cameras: int


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A data set that can be drawn.

    Attributes:
      name: name of the data set in this library.
      root: its folder as distributed.
      kind: what is drawn.
      folders: split -> folder below the root.
      modalities: in the order in which side-by-side images hold them.
      small: makes the samples of a small set.
      full: makes the samples with the public names, or the known counts where no list is public.
      default: size of the small set if nothing is asked for.
      cameras: how many there are at most.
      files: (drawing, sample, split) -> {path below the root: its modalities, side by side if several}.
      fixed_size: True if readers cut the images at fixed columns.
      darken: factor on the brightness of the visible image, whose grey version is the near-infrared image then.
      lists: samples -> {path below the root: text} of the lists that come with the images.
      made: folders that are there even if no file lies in them.
      moved: whether light and sensors of the test differ from training.
      native_size: (height, width) of one modality if it is not the usual one of the kind.
      configs: names of the splits of the identities, empty if there is only one.
      regroup: (samples, one of `configs`) -> the same samples in that split.
      image_folders: modality -> folder of its images, where every modality has one.
      captions: how the captions are written that come with the images, None for no captions.
      scenario: how its subjects move and in what light. No paper counts headings or lights, so the shares are choices
        in the light of what the papers say and show; docs/drawn_data.md lists them.
    """

    name: str
    root: str
    kind: Kind
    folders: Mapping[str, str]
    modalities: tuple[str, ...]
    small: Callable[[Size], list[DrawnSample]]
    full: Callable[[], list[DrawnSample]]
    default: Size
    cameras: int
    files: Callable[[Drawing, DrawnSample, str], dict[str, tuple[str, ...]]]
    fixed_size: bool = False
    darken: float | None = None
    lists: Callable[[Sequence[DrawnSample]], dict[str, str]] | None = None
    made: tuple[str, ...] = ()
    moved: bool = True
    native_size: tuple[int, int] | None = None
    configs: tuple[str, ...] = ()
    regroup: Callable[[Sequence[DrawnSample], str], list[DrawnSample]] | None = None
    image_folders: Mapping[str, str] = dataclasses.field(default_factory=dict)
    captions: TextForm | None = None
    scenario: Scenario = CAMPUS

    def paths(self, sample: DrawnSample) -> dict[str, tuple[str, ...]]:
        """{path below the root: modalities} of every file of a sample."""
        folders = dict.fromkeys(sample.splits)
        return {path: parts for split in folders for path, parts in self.files(self, sample, split).items()}

    @property
    def beside_splits(self) -> pathlib.PurePosixPath:
        """The folder below the root that holds those of the splits."""
        return pathlib.PurePosixPath(next(iter(self.folders.values()))).parent

    @property
    def text_folder(self) -> str:
        """Where captions lie below the root."""
        aligned = self.captions is not None and self.captions.aligned
        return (self.beside_splits / aligned_captions.FOLDER).as_posix() if aligned else captions.FOLDER

    @property
    def image_size(self) -> tuple[int, int]:
        """Native (height, width) of one modality."""
        return self.native_size or NATIVE_SIZE[self.kind]


def parallel(drawing: Drawing, sample: DrawnSample, split: str) -> dict[str, tuple[str, ...]]:
    """`Drawing.files` of a data set that has a folder for each modality of a split."""
    folders = drawing.image_folders
    return {f"{drawing.folders[split]}/{folders[name]}/{sample.file}": (name,) for name in drawing.modalities}


def by_identity(drawing: Drawing, sample: DrawnSample, split: str) -> dict[str, tuple[str, ...]]:
    """`Drawing.files` of a data set that has a folder for each identity of a split, and in it one for each modality."""
    folder, folders = f"{drawing.folders[split]}/{sample.identity:04d}", drawing.image_folders
    return {f"{folder}/{folders[name]}/{sample.file}": (name,) for name in drawing.modalities}


def side_by_side(drawing: Drawing, sample: DrawnSample, split: str) -> dict[str, tuple[str, ...]]:
    """`Drawing.files` of a data set whose files hold all modalities."""
    return {f"{drawing.folders[split]}/{sample.file}": drawing.modalities}


def numbers(pattern: str, file: str) -> tuple[int, ...]:
    """The numbers that the groups of a pattern find in a public name; ValueError where it has another form."""
    match = re.fullmatch(pattern, file)
    if match is None:
        raise ValueError(f"the manifest holds {file!r}, which does not match {pattern!r}")
    return tuple(int(text) for text in match.groups())


def spread(images: int, groups: int, start: int = 0) -> list[int]:
    """How many of `images` each of `groups` gets: equal shares, the rest to the groups from `start` on."""
    share, rest = divmod(images, groups)
    return [share + ((group - start) % groups < rest) for group in range(groups)]


def identities(size: Size) -> list[tuple[str, int, int]]:
    """(split, position in the split, identity): first those of training, then as many of the test."""
    return [
        (split, position, offset + position + 1)
        for split, offset in (("train", 0), ("test", size.identities))
        for position in range(size.identities)
    ]


def with_queries(samples: list[DrawnSample], step: int, *, rotate: bool = False) -> list[DrawnSample]:
    """The same samples, every `step`-th of the gallery (by name) being a query as well.

    With `rotate` the count starts elsewhere for every identity, so that queries come from all cameras although `step`
    may divide the number of images of an identity.
    """
    gallery = defaultdict(list)
    for sample in samples:
        if not sample.trained_on:
            gallery[sample.identity if rotate else 0].append(sample.file)
    queries = {
        file for number, key in enumerate(sorted(gallery)) for file in sorted(gallery[key])[number % step :: step]
    }
    return [
        dataclasses.replace(sample, splits=("gallery", "query")) if sample.file in queries else sample
        for sample in samples
    ]


def modality_of(sample: DrawnSample) -> str:
    """The modality of a sample of a visible-infrared data set; ValueError where all see it."""
    if sample.modality is None:
        raise ValueError(f"{sample.file} is seen by all modalities")
    return sample.modality
