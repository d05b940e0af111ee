"""SYSU-MM01: persons in visible and near-infrared images of different cameras."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mmreid_jax.data.captions import TextForm
from mmreid_jax.datasets import disk, manifests
from mmreid_jax.datasets.base import Dataset, Known
from mmreid_jax.datasets.disk import SingleFolders
from mmreid_jax.drawn import drawings
from mmreid_jax.drawn.attributes import Scenario
from mmreid_jax.drawn.drawings import Drawing, DrawnSample, Size
from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import protocols
from mmreid_jax.retrieval.galleries import Gallery
from mmreid_jax.retrieval.protocols import Protocol

CAMERAS: Mapping[str, tuple[int, ...]] = {"rgb": (1, 2, 4, 5), "nir": (3, 6)}
"""Modality -> its cameras, in the order in which the references list them."""

CAPTIONS = TextForm("datasets/sysu/", arrays=True)

_LISTS = {"train": ("train", "val"), "query": ("test",), "gallery": ("test",)}


def labels(stem: str) -> disk.NameLabels:
    """Identity and camera are folders of SYSU-MM01, so a base name alone says neither."""
    raise ValueError(f"{stem!r} says neither identity nor camera")


def identities(root: pathlib.Path) -> dict[str, list[int]]:
    """List (``train``, ``val``, ``test``) -> its identities, ascending.

    Raises:
      UserError: a list is damaged, or a test identity is in another list as well.
    """
    lists = {name: disk.read_identities(root / "exp" / f"{name}_id.txt") for name in ("train", "val", "test")}
    both = sorted({*lists["train"], *lists["val"]}.intersection(lists["test"]))
    if both:
        listed = disk.few([str(identity) for identity in both])
        raise UserError(
            f"sysu_mm01: {len(both)} identities of {root / 'exp' / 'test_id.txt'} are also in train_id.txt or "
            f"val_id.txt ({listed}); get the lists again"
        )
    return lists


def list_split(folders: SingleFolders, root: pathlib.Path, split: str) -> list[disk.Sample]:
    """The images of a split as the references list them: modality, identity, camera, file.

    The class index of a training identity is its rank among those of train and val.

    Raises:
      UserError: a list is damaged, or a listed identity has no image (for training: of one of the modalities).
    """
    lists = identities(root)
    chosen = sorted({identity for name in _LISTS[split] for identity in lists[name]})
    modalities = folders.modalities_of(split)
    files = {
        (camera, identity): disk.images_in(root / f"cam{camera}" / f"{identity:04d}")
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
            f"in {cameras}: {disk.few(absent)}; complete the copy"
        )
    return [
        disk.Sample(
            f"cam{camera}/{identity:04d}/{name}",
            disk.NameLabels(identity, camera - 1, scene=0),
            {"image": root / f"cam{camera}" / f"{identity:04d}" / name},
            label=rank if split == "train" else -1,
            modality=modality,
        )
        for modality in modalities
        for rank, identity in enumerate(chosen)
        for camera in CAMERAS[modality]
        for name in files[camera, identity]
    ]


FOLDERS = SingleFolders(
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


_DRAWN_CAMERAS = (1, 6, 4, 3, 2, 5)
"""Cameras in the order in which a small set takes them: with two there is one of each kind already."""


def _drawn(splits: tuple[str, ...], identity: int, camera: int, frame: int) -> DrawnSample:
    infrared = camera in CAMERAS["nir"]
    if "train" not in splits:
        splits = ("query",) if infrared else ("gallery",)
    return DrawnSample(
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


def _small(size: Size) -> list[DrawnSample]:
    samples = []
    validated = max(1, size.identities // 4)
    cameras = _DRAWN_CAMERAS[: size.cameras]
    for split, position, _ in drawings.identities(size):
        # As in the real lists, identities of training and test alternate, so that class indices are not identities.
        identity = 2 * position + 1 + (split == "test")
        val = split == "train" and position >= size.identities - validated
        splits = ("train", "val") if val else (split,)
        shares = dict(zip(cameras, drawings.spread(size.images_per_identity, size.cameras), strict=True))
        samples += [
            _drawn(splits, identity, camera, frame + 1) for camera in sorted(shares) for frame in range(shares[camera])
        ]
    return samples


def _full() -> list[DrawnSample]:
    train = {int(row["original_id"]) for row in manifests.rows("sysu_train_counts")}
    test = {int(row["id"]) for row in manifests.rows("sysu_official_gallery_first10")}
    samples = []
    for row in sorted(manifests.rows("sysu_counts"), key=lambda row: (int(row["id"]), int(row["cam"]))):
        identity = int(row["id"])
        val = 334 <= identity <= 433 and identity in train
        splits = ("train", "val") if val else ("train",) if identity in train else ("test",)
        if identity in train or identity in test:
            count = int(row["n_images_in_official_permutation"])
            samples += [_drawn(splits, identity, int(row["cam"]), frame + 1) for frame in range(count)]
    return samples


def _files(drawing: Drawing, sample: DrawnSample, split: str) -> dict[str, tuple[str, ...]]:
    return {f"cam{sample.camera}/{sample.identity:04d}/{sample.file}": (drawings.modality_of(sample),)}


def _lists(samples: Sequence[DrawnSample]) -> dict[str, str]:
    parts: dict[str, set[int]] = {name: set() for name in ("train", "val", "test", "available")}
    for sample in samples:
        part = "val" if "val" in sample.splits else "train" if sample.trained_on else "test"
        parts[part].add(sample.identity)
        parts["available"].add(sample.identity)
    return {f"exp/{name}_id.txt": ",".join(map(str, sorted(members))) + "\n" for name, members in parts.items()}


# Cameras count from 0 in tables: of the visible ones, 1, 2, 4 and 5, the first two stand indoors.
_SEARCHES = {"all": (0, 1, 3, 4), "indoor": (0, 1)}
_SHOTS = {"single": 1, "multi": 10}


def _protocols(draw: str, suffix: str = "") -> tuple[Protocol, ...]:
    """All and indoor search, each with one and ten shots, of galleries drawn in one way."""
    common = dataclasses.replace(
        protocols.CROSS_MODAL,
        removes="camera_2_for_camera_3",
        counts="identities",
        direction=protocols.INFRARED_SEARCHES,
    )
    picks = _official_picks if draw == "official" else None
    return tuple(
        dataclasses.replace(
            common, name=f"sysu_{search}_{shots}{suffix}", gallery=Gallery(cameras, count, draw, picks=picks)
        )
        for search, cameras in _SEARCHES.items()
        for shots, count in _SHOTS.items()
    )


@functools.cache
def _official_picks() -> Mapping[tuple[int, int], np.ndarray]:
    """(identity, camera from 0) -> int [trials, 10], positions among the sorted files of that folder, from 0."""
    picks: dict[tuple[int, int], dict[int, list[int]]] = {}
    for row in manifests.rows("sysu_official_gallery_first10"):
        numbers = [int(number) - 1 for number in row["image_numbers_1based_in_order"].split()]
        picks.setdefault((int(row["id"]), int(row["cam"]) - 1), {})[int(row["trial"])] = numbers
    return {key: np.array([trials[t] for t in sorted(trials)]) for key, trials in picks.items()}


def _listed(part: str) -> Iterator[tuple[str, str]]:
    """Numbers of images are public, their names are not: see `_compared_names`."""
    trained = {row["original_id"] for row in manifests.rows("sysu_train_counts")}
    tested = {row["id"] for row in manifests.rows("sysu_official_gallery_first10")}
    for row in manifests.rows("sysu_counts"):
        if row["id"] in trained or row["id"] in tested:
            split = "train" if row["id"] in trained else "query" if row["cam"] in ("3", "6") else "gallery"
            for number in range(int(row["n_images_in_official_permutation"])):
                yield split, f"cam{row['cam']}/{int(row['id']):04d} image {number + 1}"


def _compared_names(files: Sequence[str]) -> list[str]:
    """The position of every file among those of its folder."""
    seen: Counter[str] = Counter()
    names = []
    for folder in (pathlib.PurePosixPath(file).parent.as_posix() for file in files):
        seen[folder] += 1
        names.append(f"{folder} image {seen[folder]}")
    return names


DATASET = Dataset(
    description="""\
491 persons seen by four visible cameras (rgb: 1, 2, 4, 5) and two near-infrared cameras (nir: 3, 6).

22,258 visible and 11,909 infrared images of 395 persons for training (train and val); of 96 persons for the test
3,803 infrared images as query, and 6,775 visible ones from which the trials of a protocol draw their galleries.""",
    citation="""@inproceedings{wu2017rgb,
  title = {{RGB}-Infrared Cross-Modality Person Re-Identification},
  author = {Wu, Ancong and Zheng, Wei-Shi and Yu, Hong-Xing and Gong, Shaogang and Lai, Jianhuang},
  booktitle = {Proceedings of the IEEE International Conference on Computer Vision},
  pages = {5380--5389},
  year = {2017},
}""",
    name="sysu_mm01",
    folders=FOLDERS,
    published={
        "train": Known(34167, 395, "train"),
        "query": Known(3803, 96, "query"),
        "gallery": Known(6775, 96, "gallery"),
    },
    listed=_listed,
    compared_names=_compared_names,
    # Published numbers of AGW and its successors use the first draw; none uses the official one.
    protocols=(*_protocols("trial"), *_protocols("official", "_official")),
    peculiar_protocols=_protocols("stream", "_hetero_center"),
    captions=CAPTIONS,
    drawing=Drawing(
        name="sysu_mm01",
        root=FOLDERS.folder,
        kind="person",
        folders=drawings.SINGLE,
        modalities=("rgb", "nir"),
        small=_small,
        full=_full,
        default=Size(24, 24, 6),
        cameras=6,
        files=_files,
        lists=_lists,
        made=tuple(f"cam{camera}" for camera in range(1, 7)),
        # Wu et al., ICCV 2017, and the data set's own description: people walk about in two rooms, with "different
        # poses and viewpoints" in the frames of one camera, and pass a gate, a garden and a passage.
        scenario=Scenario(headings={"towards": 0.45, "away": 0.25, "sideways": 0.30}, leg=2),
        captions=CAPTIONS,
    ),
)
