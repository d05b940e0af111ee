"""The data sets that can be drawn: which samples they hold, and where and under what names these lie on disk.

One entry of `LAYOUTS` describes one data set. A sample may become several files (one a modality), one file with the
modalities side by side, or the same file in two folders; `Layout.files` says which, so a data set whose modalities are
not aligned is just another entry.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from importlib import resources

from mmreid_jax.data.synthetic.attributes import NATIVE_SIZE, Kind
from mmreid_jax.errors import UserError

JUNK, DISTRACTOR = -1, 0
"""Identities of Market-1501 that are no person: badly cut boxes, and boxes without anybody."""

_THREE = {"rgb": "RGB", "nir": "NI", "tir": "TI"}
_QUERY_STEP = 5


@dataclasses.dataclass(frozen=True)
class Sample:
    """One moment of one identity, seen by all modalities.

    Attributes:
      splits: names of the splits that hold it; a query that is also in the gallery has both.
      file: base name.
      identity: as the data set numbers it.
      camera: from 1.
      scene: time id or scene id, 0 where the data set has none.
      frame: number within identity, camera and scene.
      view: side from which a vehicle is seen, 0...7, if that is not the camera's.
    """

    splits: tuple[str, ...]
    file: str
    identity: int
    camera: int
    scene: int = 0
    frame: int = 0
    view: int | None = None

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
class Layout:
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
      files: (layout, sample, split) -> {path below the root: its modalities, side by side if several}.
      fixed_size: True if readers cut the images at fixed columns.
      darken: factor on the brightness of the visible image, whose grey version is the near-infrared image then.
    """

    name: str
    root: str
    kind: Kind
    folders: Mapping[str, str]
    modalities: tuple[str, ...]
    small: Callable[[Size], list[Sample]]
    full: Callable[[], list[Sample]]
    default: Size
    cameras: int
    files: Callable[[Layout, Sample, str], dict[str, tuple[str, ...]]]
    fixed_size: bool = False
    darken: float | None = None

    def paths(self, sample: Sample) -> dict[str, tuple[str, ...]]:
        """{path below the root: modalities} of every file of a sample."""
        folders = dict.fromkeys(sample.splits)
        return {path: parts for split in folders for path, parts in self.files(self, sample, split).items()}

    @property
    def image_size(self) -> tuple[int, int]:
        """Native (height, width) of one modality."""
        return NATIVE_SIZE[self.kind]


def _parallel(layout: Layout, sample: Sample, split: str) -> dict[str, tuple[str, ...]]:
    return {f"{layout.folders[split]}/{_THREE[name]}/{sample.file}": (name,) for name in layout.modalities}


def _side_by_side(layout: Layout, sample: Sample, split: str) -> dict[str, tuple[str, ...]]:
    return {f"{layout.folders[split]}/{sample.file}": layout.modalities}


def _by_identity(layout: Layout, sample: Sample, split: str) -> dict[str, tuple[str, ...]]:
    folder = f"{layout.folders[split]}/{sample.identity:04d}"
    return {
        f"{folder}/{part}/{sample.file}": (name,)
        for name, part in zip(layout.modalities, ("vis", "ni", "th"), strict=True)
    }


def _public_names(dataset: str) -> list[tuple[str, str]]:
    """(split, base name) of the public data set, in the order of the list."""
    table = resources.files("mmreid_jax.data.manifests") / f"{dataset}.csv.gz"
    rows = csv.DictReader(gzip.decompress(table.read_bytes()).decode("utf-8").splitlines())
    return [(row["split"], row["file"]) for row in rows]


def _numbers(pattern: str, file: str) -> tuple[int, ...]:
    found = re.fullmatch(pattern, file)
    if found is None:
        raise ValueError(f"the manifest holds {file!r}, which does not match {pattern!r}")
    return tuple(int(text) for text in found.groups())


def _spread(images: int, groups: int, start: int = 0) -> list[int]:
    """How many of `images` each of `groups` gets: equal shares, the rest to the groups from `start` on."""
    share, rest = divmod(images, groups)
    return [share + ((group - start) % groups < rest) for group in range(groups)]


def _identities(size: Size) -> list[tuple[str, int, int]]:
    """(split, position in the split, identity): first those of training, then as many of the test."""
    return [
        (split, position, offset + position + 1)
        for split, offset in (("train", 0), ("test", size.identities))
        for position in range(size.identities)
    ]


# RGBNT201


def _rgbnt201(split: str, file: str) -> Sample:
    identity, camera, time, frame = _numbers(r"(\d{6})_cam(\d)_(\d)_(\d+)\.jpg", file)
    return Sample(("train",) if split == "train" else ("query", "gallery"), file, identity, camera, time, frame)


def _rgbnt201_small(size: Size) -> list[Sample]:
    samples = []
    for split, position, identity in _identities(size):
        for camera, images in enumerate(_spread(size.images_per_identity, size.cameras, position), start=1):
            for frame in range(images):
                # As in the public names, only training images come from a second time.
                late = int(split == "train" and frame >= (images + 1) // 2)
                number = frame - late * ((images + 1) // 2)
                samples.append(_rgbnt201(split, f"{identity:06d}_cam{camera}_{late}_{number:02d}.jpg"))
    return samples


def _rgbnt201_full() -> list[Sample]:
    return [_rgbnt201(split, file) for split, file in _public_names("rgbnt201")]


# RGBNT100, RGBN300


def _vehicle(split: str, file: str) -> Sample:
    identity, camera, frame = _numbers(r"(\d{4})_c(\d{4})_(\d+)\.jpg", file)
    return Sample(("train",) if split == "train" else ("gallery",), file, identity, camera, frame=frame)


def _with_queries(samples: list[Sample], step: int, *, rotate: bool = False) -> list[Sample]:
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


def _vehicles(counts: Sequence[tuple[str, int, Sequence[int]]]) -> list[Sample]:
    return [
        _vehicle(split, f"{identity:04d}_c{camera:04d}_{frame:03d}.jpg")
        for split, identity, per_camera in counts
        for camera, images in enumerate(per_camera, start=1)
        for frame in range(images)
    ]


def _vehicles_small(size: Size) -> list[Sample]:
    counts = [
        (split, identity, _spread(size.images_per_identity, size.cameras, position))
        for split, position, identity in _identities(size)
    ]
    return _with_queries(_vehicles(counts), min(_QUERY_STEP, size.images_per_identity), rotate=True)


def _rgbnt100_full() -> list[Sample]:
    return _with_queries([_vehicle(split, file) for split, file in _public_names("rgbnt100")], _QUERY_STEP)


def _rgbn300_full() -> list[Sample]:
    # 25,200 training and 24,925 gallery images of 150 vehicles each; one gallery image in five makes 4,985 queries.
    train = [("train", 1 + i, _spread(n, 8, i)) for i, n in enumerate(_spread(25200, 150))]
    test = [("test", 151 + i, _spread(n, 8, i)) for i, n in enumerate(_spread(24925, 150))]
    return _with_queries(_vehicles(train + test), _QUERY_STEP)


# MSVR310


def _msvr310(split: str, file: str) -> Sample:
    identity, scene, view, frame = _numbers(r"(\d{4})_s(\d{3})_v([0-7])_(\d{3})\.jpg", file)
    # All views of one scene are taken in one place at one time, so the place is the scene's.
    place = 1 + scene % 8
    return Sample(("train",) if split == "train" else ("gallery",), file, identity, place, scene, frame, view)


def _queries_of_several_scenes(samples: list[Sample]) -> list[Sample]:
    """The same samples; those of test identities seen in more than one scene are queries as well."""
    scenes = defaultdict(set)
    for sample in samples:
        scenes[sample.identity].add(sample.scene)
    return [
        dataclasses.replace(sample, splits=("gallery", "query"))
        if len(scenes[sample.identity]) > 1 and not sample.trained_on
        else sample
        for sample in samples
    ]


def _msvr310_small(size: Size) -> list[Sample]:
    samples = []
    for split, position, identity in _identities(size):
        scenes = (
            1 if position % 3 == 2 else min(3, size.images_per_identity)
        )  # many vehicles are seen in one scene only
        number = 0
        for step, images in enumerate(_spread(size.images_per_identity, scenes)):
            scene = (3 * identity + 11 * step) % 40
            for image in range(images):
                view = (identity + 3 * image + step) % size.cameras
                samples.append(_msvr310(split, f"{identity:04d}_s{scene:03d}_v{view}_{number:03d}.jpg"))
                number += 1
    return _queries_of_several_scenes(samples)


def _msvr310_full() -> list[Sample]:
    return _queries_of_several_scenes([_msvr310(split, file) for split, file in _public_names("msvr310")])


# Market1501-MM


def _market(splits: tuple[str, ...], identity: int, camera: int, frame: int, box: int) -> Sample:
    name = f"{identity:04d}" if identity >= 0 else str(identity)
    sequence = 1 + (frame // 6) % 6
    file = f"{name}_c{camera}s{sequence}_{(frame * 25 + 151 + 1000 * (identity % 97)) % 10**6:06d}_{box:02d}.jpg"
    return Sample(splits, file, identity, camera, sequence, frame)


def _market_persons(split: str, counts: Sequence[tuple[int, Sequence[int]]], queries: int) -> list[Sample]:
    """Training images, or gallery images and at most `queries` further ones, one for each identity and camera."""
    samples = []
    for identity, per_camera in counts:
        for camera, images in enumerate(per_camera, start=1):
            for frame in range(images):
                place = "train" if split == "train" else "gallery"
                samples.append(_market((place,), identity, camera, frame + 1, 1 + frame % 4))
    if split == "test":
        seen = [(i, c) for i, per_camera in counts for c, images in enumerate(per_camera, start=1) if images]
        # A query sees its identity at a moment of its own; frame 0 is kept free for it.
        samples += [_market(("query",), identity, camera, 0, 0) for identity, camera in seen[:queries]]
    return samples


def _nobody(junk: int, distractors: int, cameras: int) -> list[Sample]:
    return [
        _market(("gallery",), identity, 1 + number % cameras, number, 1 + number % 4)
        for identity, count in ((JUNK, junk), (DISTRACTOR, distractors))
        for number in range(count)
    ]


def _market_small(size: Size) -> list[Sample]:
    counts = {"train": [], "test": []}  # type: dict[str, list[tuple[int, list[int]]]]
    for split, position, identity in _identities(size):
        counts[split].append((identity, _spread(size.images_per_identity, size.cameras, position)))
    some = max(1, size.identities // 4)
    people = _market_persons("train", counts["train"], 0) + _market_persons("test", counts["test"], 10**9)
    return people + _nobody(some, some, size.cameras)


def _market_full() -> list[Sample]:
    # 12,936 training images of 751 persons; 3,368 queries of 750 persons, one for each camera that saw the person;
    # 19,732 gallery images: 13,115 of these persons, 3,819 junk boxes and 2,798 distractors.
    train = [(1 + i, _spread(n, 6, i)) for i, n in enumerate(_spread(12936, 751))]
    test = []
    for i, (images, seen) in enumerate(zip(_spread(13115, 750), _spread(3368, 750, 7), strict=True)):
        shares = _spread(images, seen)
        test.append((752 + i, [shares[(camera - i) % 6] if (camera - i) % 6 < seen else 0 for camera in range(6)]))
    return _market_persons("train", train, 0) + _market_persons("test", test, 3368) + _nobody(3819, 2798, 6)


_VEHICLE_FOLDERS = {"train": "rgbir/bounding_box_train", "query": "rgbir/query", "gallery": "rgbir/bounding_box_test"}

LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            name="rgbnt201",
            root="RGBNT201",
            kind="person",
            folders={"train": "train_171", "query": "test", "gallery": "test"},
            modalities=("rgb", "nir", "tir"),
            small=_rgbnt201_small,
            full=_rgbnt201_full,
            default=Size(24, 12, 4),
            cameras=4,
            files=_parallel,
        ),
        Layout(
            name="rgbnt100",
            root="RGBNT100",
            kind="vehicle",
            folders=_VEHICLE_FOLDERS,
            modalities=("rgb", "nir", "tir"),
            small=_vehicles_small,
            full=_rgbnt100_full,
            default=Size(24, 16, 8),
            cameras=8,
            files=_side_by_side,
            fixed_size=True,
        ),
        Layout(
            name="rgbn300",
            root="RGBN300",
            kind="vehicle",
            folders=_VEHICLE_FOLDERS,
            modalities=("rgb", "nir"),
            small=_vehicles_small,
            full=_rgbn300_full,
            default=Size(24, 16, 8),
            cameras=8,
            files=_side_by_side,
            fixed_size=True,
        ),
        Layout(
            name="msvr310",
            root="MSVR310",
            kind="vehicle",
            folders={"train": "bounding_box_train", "query": "query3", "gallery": "bounding_box_test"},
            modalities=("rgb", "nir", "tir"),
            small=_msvr310_small,
            full=_msvr310_full,
            default=Size(24, 12, 8),
            cameras=8,
            files=_by_identity,
        ),
        Layout(
            name="market1501_mm",
            root="market1501_to_RGBNT201_dark",
            kind="person",
            folders={"train": "train", "query": "query", "gallery": "gallery"},
            modalities=("rgb", "nir", "tir"),
            small=_market_small,
            full=_market_full,
            default=Size(24, 12, 6),
            cameras=6,
            files=_parallel,
            darken=0.4,
        ),
    )
}


def layout(dataset: str) -> Layout:
    """The layout of a data set.

    Raises:
      UserError: there is none of that name.
    """
    if dataset not in LAYOUTS:
        raise UserError(f"{dataset!r} cannot be drawn; the data sets are {', '.join(LAYOUTS)}")
    return LAYOUTS[dataset]


def size_of(
    dataset: str, identities: int | None = None, images_per_identity: int | None = None, cameras: int | None = None
) -> Size:
    """The size of a small set; what is None takes the data set's default.

    Raises:
      UserError: too small to train or evaluate on, or more than names can hold.
    """
    chosen = layout(dataset)
    cameras = chosen.default.cameras if cameras is None else cameras
    images = chosen.default.images_per_identity if images_per_identity is None else images_per_identity
    identities = chosen.default.identities if identities is None else identities
    if not 2 <= cameras <= chosen.cameras:
        raise UserError(f"cameras is {cameras}; {dataset} needs 2 (matches cross cameras) to {chosen.cameras}")
    if not 2 <= images <= 100:
        raise UserError(f"images_per_identity is {images}; it must be 2 (one to find the other) to 100")
    if not 2 <= identities <= 300:
        raise UserError(f"identities is {identities}; it must be 2 to 300 (file names end at identity 600)")
    return Size(identities, images, cameras)


def plan(
    dataset: str,
    *,
    identities: int | None = None,
    images_per_identity: int | None = None,
    cameras: int | None = None,
    full: bool = False,
) -> list[Sample]:
    """All samples of a drawn data set, without drawing any.

    Args:
      dataset: one of `LAYOUTS`.
      identities: identities in each of training and test.
      images_per_identity, cameras: images of each identity, and from how many cameras.
      full: the public names and counts instead; the three numbers above must be None.

    Raises:
      UserError: unknown data set, or impossible numbers.
    """
    chosen = layout(dataset)
    if full:
        if any(number is not None for number in (identities, images_per_identity, cameras)):
            raise UserError("a full set has the public counts; leave out identities, images_per_identity and cameras")
        samples = chosen.full()
    else:
        samples = chosen.small(size_of(dataset, identities, images_per_identity, cameras))
    twice = [
        path
        for path, count in Counter(path for sample in samples for path in chosen.paths(sample)).items()
        if count > 1
    ]
    if twice:
        raise ValueError(f"{dataset}: {len(twice)} files would be written twice, first {twice[0]}")
    return samples
