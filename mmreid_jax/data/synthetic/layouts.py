"""The data sets that can be drawn: which samples they hold, and where and under what names these lie on disk.

One entry of `LAYOUTS` describes one data set. A sample may become several files (one a modality), one file with the
modalities side by side, or the same file in two folders; `Layout.files` says which. In a visible-infrared data set a
sample is one image of one modality (`Sample.modality`): nobody is seen by both kinds of cameras at the same moment.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from importlib import resources

import numpy as np

from mmreid_jax.data.synthetic.attributes import CAMPUS, NATIVE_SIZE, Kind, Scenario
from mmreid_jax.data.synthetic.streams import generator
from mmreid_jax.errors import UserError

JUNK, DISTRACTOR = -1, 0
"""Identities of Market-1501 that are no person: badly cut boxes, and boxes without anybody."""

_SINGLE = {"train": "", "query": "", "gallery": ""}
_THREE = {"rgb": "RGB", "nir": "NI", "tir": "TI"}
_QUERY_STEP = 5


@dataclasses.dataclass(frozen=True)
class Sample:
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
      lists: samples -> {path below the root: text} of the lists that come with the images.
      made: folders that are there even if no file lies in them.
      moved: whether light and sensors of the test differ from training.
      native_size: (height, width) of one modality if it is not the usual one of the kind.
      configs: names of the splits of the identities, empty if there is only one.
      regroup: (samples, one of `configs`) -> the same samples in that split.
      captioned: whether captions come with the images.
      scenario: how its subjects move and in what light.
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
    lists: Callable[[Sequence[Sample]], dict[str, str]] | None = None
    made: tuple[str, ...] = ()
    moved: bool = True
    native_size: tuple[int, int] | None = None
    configs: tuple[str, ...] = ()
    regroup: Callable[[Sequence[Sample], str], list[Sample]] | None = None
    captioned: bool = False
    scenario: Scenario = CAMPUS

    def paths(self, sample: Sample) -> dict[str, tuple[str, ...]]:
        """{path below the root: modalities} of every file of a sample."""
        folders = dict.fromkeys(sample.splits)
        return {path: parts for split in folders for path, parts in self.files(self, sample, split).items()}

    @property
    def image_size(self) -> tuple[int, int]:
        """Native (height, width) of one modality."""
        return self.native_size or NATIVE_SIZE[self.kind]


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


def _manifest(name: str) -> list[dict[str, str]]:
    """The rows of a public list."""
    table = resources.files("mmreid_jax.data.manifests") / f"{name}.csv.gz"
    return list(csv.DictReader(gzip.decompress(table.read_bytes()).decode("utf-8").splitlines()))


def _public_names(dataset: str) -> list[tuple[str, str]]:
    """(split, base name) of the public data set, in the order of the list."""
    return [(row["split"], row["file"]) for row in _manifest(dataset)]


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


# SYSU-MM01

_SYSU_CAMERAS = (1, 6, 4, 3, 2, 5)
"""Cameras in the order in which a small set takes them: with two there is one of each kind already."""

_SYSU_INFRARED = (3, 6)


def _sysu(splits: tuple[str, ...], identity: int, camera: int, frame: int) -> Sample:
    infrared = camera in _SYSU_INFRARED
    if "train" not in splits:
        splits = ("query",) if infrared else ("gallery",)
    return Sample(
        splits,
        f"{frame:04d}.jpg",
        identity,
        camera,
        scene=int(infrared),
        frame=frame,
        modality="nir" if infrared else "rgb",
        light="night" if infrared else "day",
        place=2 if camera == 3 else None,  # room 2 with the lights off
    )


def _sysu_small(size: Size) -> list[Sample]:
    samples = []
    validated = max(1, size.identities // 4)
    cameras = _SYSU_CAMERAS[: size.cameras]
    for split, position, _ in _identities(size):
        # As in the real lists, identities of training and test alternate, so that class indices are not identities.
        identity = 2 * position + 1 + (split == "test")
        val = split == "train" and position >= size.identities - validated
        splits = ("train", "val") if val else (split,)
        shares = dict(zip(cameras, _spread(size.images_per_identity, size.cameras), strict=True))
        samples += [
            _sysu(splits, identity, camera, frame + 1) for camera in sorted(shares) for frame in range(shares[camera])
        ]
    return samples


def _sysu_full() -> list[Sample]:
    train = {int(row["original_id"]) for row in _manifest("sysu_train_counts")}
    test = {int(row["id"]) for row in _manifest("sysu_official_gallery_first10")}
    samples = []
    for row in sorted(_manifest("sysu_counts"), key=lambda row: (int(row["id"]), int(row["cam"]))):
        identity = int(row["id"])
        val = 334 <= identity <= 433 and identity in train
        splits = ("train", "val") if val else ("train",) if identity in train else ("test",)
        if identity in train or identity in test:
            count = int(row["n_images_in_official_permutation"])
            samples += [_sysu(splits, identity, int(row["cam"]), frame + 1) for frame in range(count)]
    return samples


def _sysu_files(layout: Layout, sample: Sample, split: str) -> dict[str, tuple[str, ...]]:
    return {f"cam{sample.camera}/{sample.identity:04d}/{sample.file}": (_only(sample),)}


def _sysu_lists(samples: Sequence[Sample]) -> dict[str, str]:
    parts: dict[str, set[int]] = {name: set() for name in ("train", "val", "test", "available")}
    for sample in samples:
        part = "val" if "val" in sample.splits else "train" if sample.trained_on else "test"
        parts[part].add(sample.identity)
        parts["available"].add(sample.identity)
    return {f"exp/{name}_id.txt": ",".join(map(str, sorted(found))) + "\n" for name, found in parts.items()}


# RegDB

_REGDB_FOLDERS = {"rgb": "Visible", "tir": "Thermal"}
_REGDB_TRIALS = tuple(range(1, 11))


def _regdb(file: str, frame: int) -> Sample:
    """Image `frame` (from 0) of one modality. Both cameras see the same passage, but never at the same moment."""
    modality = "rgb" if "_v_" in file else "tir"
    (identity,) = _numbers(r".*_(\d+)\.bmp", file)
    thermal = modality == "tir"
    return Sample(
        (),
        file,
        identity,
        1 + thermal,
        frame=2 * frame + thermal,
        modality=modality,
        light="day",
        place=1,
        heading="away" if "_back_" in file else "towards",
    )


def _regdb_small(size: Size) -> list[Sample]:
    samples = []
    for _, _, identity in _identities(size):
        who = f"{('male', 'female')[identity % 2]}_{('front', 'back')[identity // 2 % 2]}"
        for letter, images in zip("vt", _spread(size.images_per_identity, 2), strict=True):
            names = [f"{who}_{letter}_{11 * identity + 2 * frame:05d}_{identity}.bmp" for frame in range(images)]
            samples += [_regdb(name, frame) for frame, name in enumerate(names)]
    return samples


def _regdb_full() -> list[Sample]:
    names = sorted(row["file"].split("/")[-1] for row in _manifest("regdb_images"))
    groups = defaultdict(list)
    for name in names:
        identity = int(name.rpartition("_")[2].removesuffix(".bmp"))
        groups[identity, "_t_" in name].append(name)
    return [_regdb(name, frame) for key in sorted(groups) for frame, name in enumerate(groups[key])]


def _regdb_trial(identities: Sequence[int], trial: int) -> tuple[list[int], list[int]]:
    """Training and test identities of a split in the order of its lists; the public split where these are everybody."""
    public: dict[str, list[int]] = {"train": [], "test": []}
    for row in _manifest("regdb_splits"):
        if int(row["trial"]) == trial:
            public[row["split"]].append(int(row["id"]))
    if set(identities) == {*public["train"], *public["test"]}:
        return public["train"], public["test"]
    order = generator(trial, "regdb split").permutation(np.array(sorted(identities))).tolist()
    return order[: len(order) // 2], order[len(order) // 2 :]


def _regdb_regroup(samples: Sequence[Sample], config: str) -> list[Sample]:
    trial = int(config.removeprefix("trial_"))
    trained = set(_regdb_trial(sorted({sample.identity for sample in samples}), trial)[0])
    test = {"rgb": "query", "tir": "gallery"}
    return [
        dataclasses.replace(sample, splits=("train" if sample.identity in trained else test[_only(sample)],))
        for sample in samples
    ]


def _regdb_files(layout: Layout, sample: Sample, split: str) -> dict[str, tuple[str, ...]]:
    return {f"{_REGDB_FOLDERS[_only(sample)]}/{sample.identity}/{sample.file}": (_only(sample),)}


def _regdb_lists(samples: Sequence[Sample]) -> dict[str, str]:
    files = defaultdict(list)
    for sample in samples:
        files[sample.identity, _only(sample)].append(sample.file)
    identities = sorted({sample.identity for sample in samples})
    lists = {}
    for trial in _REGDB_TRIALS:
        for part, order in zip(("train", "test"), _regdb_trial(identities, trial), strict=True):
            for modality, folder in _REGDB_FOLDERS.items():
                lists[f"idx/{part}_{folder.lower()}_{trial}.txt"] = "".join(
                    f"{folder}/{identity}/{file} {label}\n"
                    for label, identity in enumerate(order)
                    for file in sorted(files[identity, modality])
                )
    return lists


# LLCM

_LLCM_PARTS = {"rgb": "vis", "nir": "nir"}


def _llcm_samples(names: Sequence[tuple[str, str]]) -> list[Sample]:
    """The samples of (list, base name), in that order; images of one person, camera and time stamp are one passage."""
    frames: dict[str, int] = {}
    passages: dict[tuple[int, ...], int] = Counter()
    for _, name in sorted(names, key=lambda row: row[1]):
        *passage, infrared, _ = _llcm_numbers(name)
        frames[name] = passages[*passage, infrared]
        passages[*passage, infrared] += 1
    samples = []
    for part, name in names:
        identity, camera, stamp, infrared, _ = _llcm_numbers(name)
        samples.append(
            Sample(
                ("train",) if part.startswith("train") else ("query",) if infrared else ("gallery",),
                name,
                identity,
                camera,
                scene=2 * stamp + infrared,
                frame=frames[name],
                modality="nir" if infrared else "rgb",
                light="night" if infrared or (identity + camera) % 3 == 0 else "dusk",
            )
        )
    return samples


def _llcm_numbers(name: str) -> tuple[int, ...]:
    """Identity, camera, time stamp, 1 for infrared, frame."""
    infrared = name.endswith("_nir.jpg")
    identity, camera, stamp, frame = _numbers(r"(\d{4})_c(\d\d)_s(\d{6})_f(\d+)_(?:vis|nir)\.jpg", name)
    return identity, camera, stamp, int(infrared), frame


def _llcm_small(size: Size) -> list[Sample]:
    names = []
    # As in the real lists, classes are not numbered in the order of the identities.
    for split, position, identity in sorted(
        _identities(size), key=lambda row: (row[0] == "test", row[2] * 37 % 101, row[2])
    ):
        around = [1 + (position + step) % size.cameras for step in range(size.cameras)]
        seen = {"rgb": around[:2], "nir": [camera for camera in (*around[1:], around[0]) if camera != 3][:2]}
        for modality, images in zip(seen, _spread(size.images_per_identity, 2), strict=True):
            part = _LLCM_PARTS[modality]
            for step, (camera, share) in enumerate(
                zip(seen[modality], _spread(images, len(seen[modality])), strict=True)
            ):
                stamp = 180000 + 100 * (identity % 50) + 10 * step + 5 * (modality == "nir")
                names += [
                    (f"{split}_{part}", f"{identity:04d}_c{camera:02d}_s{stamp}_f{150 + 15 * frame}_{part}.jpg")
                    for frame in range(share)
                ]
    return _llcm_samples(names)


def _llcm_full() -> list[Sample]:
    return _llcm_samples([(row["list"], row["file"].split("/")[-1]) for row in _manifest("llcm")])


def _llcm_files(layout: Layout, sample: Sample, split: str) -> dict[str, tuple[str, ...]]:
    part, folder = _LLCM_PARTS[_only(sample)], f"{sample.identity:04d}"
    files: dict[str, tuple[str, ...]] = {f"{part}/{folder}/{sample.file}": (_only(sample),)}
    if split != "train":
        files[f"test_{part}/cam{sample.camera}/{folder}/{sample.file}"] = (_only(sample),)
    return files


def _llcm_lists(samples: Sequence[Sample]) -> dict[str, str]:
    classes: dict[bool, dict[int, int]] = {True: {}, False: {}}
    lines = defaultdict(list)
    for sample in samples:
        label = classes[sample.trained_on].setdefault(sample.identity, len(classes[sample.trained_on]))
        part = _LLCM_PARTS[_only(sample)]
        name = f"idx/{'train' if sample.trained_on else 'test'}_{part}.txt"
        lines[name].append(f"{part}/{sample.identity:04d}/{sample.file} {label}\n")
    return {name: "".join(found) for name, found in lines.items()} | {
        "idx/test_id.txt": ",".join(map(str, classes[False])) + "\n"
    }


def _only(sample: Sample) -> str:
    """The modality of a sample of a visible-infrared data set."""
    if sample.modality is None:
        raise ValueError(f"{sample.file} is seen by all modalities")
    return sample.modality


_VEHICLE_FOLDERS = {"train": "rgbir/bounding_box_train", "query": "rgbir/query", "gallery": "rgbir/bounding_box_test"}

# No paper counts headings or lights, so these shares are choices in the light of what the papers say and show.
# RGBNT201 (Zheng et al., AAAI 2021): four cameras on a campus, images of two times, "harsh lighting" in which RGB is
# almost invalid in a part of them; people come, go and cross: `CAMPUS`. Also for the vehicle sets of the same group.
# Market-1501 (Zheng et al., ICCV 2015): six cameras in front of a supermarket, by day; people cross in all directions.
_SQUARE = Scenario(headings={"towards": 0.35, "away": 0.35, "sideways": 0.30})
# SYSU-MM01 (Wu et al., ICCV 2017, and the data set's own description): people walk about in two rooms, with "different
# poses and viewpoints" in the frames of one camera, and pass a gate, a garden and a passage.
_ROOMS = Scenario(headings={"towards": 0.45, "away": 0.25, "sideways": 0.30}, leg=2)
# RegDB (Nguyen et al., Sensors 2017): seen from above at one place, walking to or from it as the file's name says.
_ROOF = Scenario(spread=0.12, turn=0.25)
# LLCM (Zhang and Wang, CVPR 2023): nine cameras above paths, at night and in dim light.
_PATHS = Scenario(headings={"towards": 0.45, "away": 0.35, "sideways": 0.20})

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
            scenario=CAMPUS,
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
            scenario=CAMPUS,
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
            scenario=CAMPUS,
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
            scenario=CAMPUS,
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
            scenario=_SQUARE,
        ),
        Layout(
            name="sysu_mm01",
            root="SYSU-MM01",
            kind="person",
            folders=_SINGLE,
            modalities=("rgb", "nir"),
            small=_sysu_small,
            full=_sysu_full,
            default=Size(24, 24, 6),
            cameras=6,
            files=_sysu_files,
            lists=_sysu_lists,
            made=tuple(f"cam{camera}" for camera in range(1, 7)),
            captioned=True,
            scenario=_ROOMS,
        ),
        Layout(
            name="regdb",
            root="RegDB",
            kind="person",
            folders=_SINGLE,
            modalities=("rgb", "tir"),
            small=_regdb_small,
            full=_regdb_full,
            default=Size(24, 20, 2),
            cameras=2,
            files=_regdb_files,
            lists=_regdb_lists,
            moved=False,  # everybody is trained on in some split
            native_size=(128, 64),
            configs=tuple(f"trial_{trial}" for trial in _REGDB_TRIALS),
            regroup=_regdb_regroup,
            captioned=True,
            scenario=_ROOF,
        ),
        Layout(
            name="llcm",
            root="LLCM",
            kind="person",
            folders=_SINGLE,
            modalities=("rgb", "nir"),
            small=_llcm_small,
            full=_llcm_full,
            default=Size(24, 24, 9),
            cameras=9,
            files=_llcm_files,
            lists=_llcm_lists,
            made=tuple(f"test_{part}/cam{camera}" for part in ("vis", "nir") for camera in range(1, 10)),
            captioned=True,
            scenario=_PATHS,
        ),
    )
}


def layout(dataset: str) -> Layout:
    """The layout of a data set.

    Raises:
      UserError: there is none of that name.
    """
    base, config = _parts(dataset)
    if base not in LAYOUTS or (config and config not in LAYOUTS[base].configs):
        raise UserError(f"{dataset!r} cannot be drawn; the data sets are {', '.join(LAYOUTS)}")
    return LAYOUTS[base]


def _parts(dataset: str) -> tuple[str, str]:
    """Name of the data set, and that of the split of its identities or ""."""
    base, _, config = dataset.partition("/")
    return base, config


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
      dataset: one of `LAYOUTS`; ``regdb/trial_1`` ... ``regdb/trial_10`` are the same images in other splits.
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
    if chosen.regroup:
        samples = chosen.regroup(samples, _parts(dataset)[1] or chosen.configs[0])
    twice = [
        path
        for path, count in Counter(path for sample in samples for path in chosen.paths(sample)).items()
        if count > 1
    ]
    if twice:
        raise ValueError(f"{dataset}: {len(twice)} files would be written twice, first {twice[0]}")
    return samples
