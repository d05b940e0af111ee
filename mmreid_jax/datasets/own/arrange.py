"""From images with labels as somebody has written them to the samples of training, query and gallery."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from mmreid_jax.data import captions
from mmreid_jax.datasets import disk
from mmreid_jax.datasets.own.description import MODALITIES, SPLITS
from mmreid_jax.datasets.own.faults import Faults
from mmreid_jax.errors import UserError
from mmreid_jax.retrieval.protocols import JUNK_IDENTITY

_MOST = 2**31


@dataclasses.dataclass(frozen=True)
class FoundImage:
    """An image and what is said of it, as it is written; "" where nothing is.

    Attributes:
      path: of the file.
      file: its name in tables and messages.
      identity: of whom it shows.
      camera: that took it.
      scene: scene or time.
      modality: one of `MODALITIES`.
      split: ``train``, ``query``, ``gallery`` or ``test``.
      key: what images of one sample in several modalities have in common.
      caption: what it shows, in words.
    """

    path: pathlib.Path
    file: str
    identity: str
    camera: str = ""
    scene: str = ""
    modality: str = "rgb"
    split: str = ""
    key: str = ""
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class SplitDraw:
    """How splits are drawn where none are given.

    Attributes:
      test_share: of the identities that go to the test, between 0 and 1.
      seed: of the draw.
    """

    test_share: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks both; `UserError` names the one that makes no sense."""
        if not 0 < self.test_share < 1:
            raise UserError(f"--test_share is {self.test_share}; it must lie between 0 and 1")
        if self.seed < 0:
            raise UserError(f"--seed is {self.seed}; it must not be negative")


@dataclasses.dataclass(frozen=True)
class Arranged:
    """Samples by split.

    Attributes:
      samples: split -> its samples, by identity, camera and name.
      modalities: see `description.Description`.
      aligned: likewise.
      cameras: likewise.
      split: likewise.
      captions: likewise.
      identities: name of an identity as it was written -> its number; empty where they are the same.
      notes: sentences worth printing.
    """

    samples: Mapping[str, Sequence[disk.Sample]]
    modalities: tuple[str, ...]
    aligned: bool
    cameras: tuple[str, ...]
    split: str
    captions: bool
    identities: Mapping[str, int]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Row:
    """A sample with its labels as they are written: the images by modality, the first of which speaks for all."""

    images: Mapping[str, FoundImage]

    @property
    def first(self) -> FoundImage:
        return next(iter(self.images.values()))


def arrange(found: Sequence[FoundImage], faults: Faults, *, aligned: bool | None, drawing: SplitDraw) -> Arranged:
    """Samples of images.

    Args:
      found: the images.
      faults: gets what is wrong; the result is of use only if nothing is.
      aligned: whether images of several modalities belong together by `FoundImage.key`; None: if any do.
      drawing: of the splits, where none are given.
    """
    junk = [each for each in found if each.identity == str(JUNK_IDENTITY)]
    found = [each for each in found if each.identity != str(JUNK_IDENTITY)]
    notes = [f"{len(junk)} images of identity -1 are left out, as boxes of nobody"] if junk else []
    for column in ("camera", "scene", "split"):
        lacking = [each.file for each in found if not getattr(each, column)]
        if len(lacking) < len(found):
            faults.add(f"images have no {column}, but others have", lacking)
    if len({each.camera for each in found}) < 2:
        # Of a single camera all matches would be excluded.
        what = "all images are of one camera" if found and found[0].camera else "cameras are not known"
        notes.append(f"{what}, so nothing is excluded by camera when scores are made")
        found = [dataclasses.replace(each, camera="") for each in found]
    modalities = tuple(name for name in MODALITIES if any(each.modality == name for each in found))
    rows, is_aligned = _rows(found, modalities, aligned, faults)
    identities = _numbers([row.first.identity for row in rows])
    cameras = _ranks([row.first.camera for row in rows])
    scenes = _ranks([row.first.scene for row in rows])
    rows.sort(key=lambda row: (identities[row.first.identity], cameras[row.first.camera], row.first.file))
    if all(row.first.split for row in rows):
        splits, how = _given(rows, modalities, is_aligned, drawing.seed, faults), "given"
    else:
        splits, how = _drawn(rows, modalities, is_aligned, drawing, faults)
    notes += _remarks(splits, modalities, is_aligned, known_cameras=any(cameras))
    captioned = any(each.caption for each in found) and not is_aligned
    if captioned:
        _check_captions(splits, faults)
    elif any(each.caption for each in found):
        notes.append("captions are not kept: methods read them of visible and infrared images that are not aligned")
    samples = {
        split: _samples(members, identities, cameras, scenes, single=not is_aligned, train=split == "train")
        for split, members in splits.items()
    }
    if captioned:
        visible = _captions_of(splits["gallery"])
        samples = {
            split: _with_texts(splits[split], listed, visible if split == "query" else {})
            for split, listed in samples.items()
        }
    return Arranged(
        samples,
        modalities,
        is_aligned,
        tuple(cameras) if any(cameras) else (),
        how,
        captioned,
        {} if all(name.isdecimal() for name in identities) else identities,
        tuple(notes),
    )


def _rows(
    found: Sequence[FoundImage], modalities: tuple[str, ...], aligned: bool | None, faults: Faults
) -> tuple[list[_Row], bool]:
    """The samples, and whether they are seen by all modalities at once."""
    if len(modalities) < 2:
        return [_Row({each.modality: each}) for each in found], True
    groups: dict[str, list[FoundImage]] = defaultdict(list)
    for each in found:
        groups[each.key].append(each)
    if aligned is None:
        aligned = any(len({each.modality for each in group}) > 1 for group in groups.values())
    if not aligned:
        if len(modalities) != 2 or modalities[0] != "rgb":
            faults.add(
                "modalities that are not aligned; there may be two, rgb and one of infrared (aligned images have equal "
                "names)",
                modalities,
            )
        return [_Row({each.modality: each}) for each in found], False
    for name in modalities:
        alone = [group[0].file for group in groups.values() if all(each.modality != name for each in group)]
        faults.add(f"samples have no {name} image of the same name (if none belong together: --unaligned)", alone)
    twice = [group[-1].file for group in groups.values() if len({each.modality for each in group}) < len(group)]
    faults.add("samples have two images of one modality", twice)
    at_odds = [
        group[0].file
        for group in groups.values()
        if len({(each.identity, each.camera, each.scene, each.split) for each in group}) > 1
    ]
    faults.add("samples have images whose labels differ", at_odds)
    of_modality = [{each.modality: each for each in group} for group in groups.values()]
    return [_Row({name: images[name] for name in modalities if name in images}) for images in of_modality], True


def _numbers(names: Sequence[str]) -> dict[str, int]:
    """Name of an identity -> its number: the name itself where all are different numbers, else ranks from 1."""
    distinct = sorted(set(names), key=_natural)
    numbers = [int(name) for name in distinct if re.fullmatch(r"\d+", name, re.ASCII) and int(name) < _MOST]
    if len(set(numbers)) == len(distinct):
        return dict(zip(distinct, numbers, strict=True))
    return {name: rank for rank, name in enumerate(distinct, start=1)}


def _ranks(names: Sequence[str]) -> dict[str, int]:
    """Name -> its rank from 0, numbers in their order."""
    return {name: rank for rank, name in enumerate(sorted(set(names), key=_natural))}


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts ``c2`` before ``c10``."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _of_identity(rows: Sequence[_Row]) -> dict[str, list[_Row]]:
    groups: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        groups[row.first.identity].append(row)
    return groups


def _given(
    rows: Sequence[_Row], modalities: tuple[str, ...], aligned: bool, seed: int, faults: Faults
) -> dict[str, list[_Row]]:
    """The splits as they are written; ``test`` is drawn into query and gallery."""
    by_split: dict[str, list[_Row]] = {split: [] for split in (*SPLITS, "test")}
    for row in rows:
        by_split[row.first.split].append(row)
    tested = {row.first.identity for split in ("query", "gallery", "test") for row in by_split[split]}
    faults.add(
        "identities are both in training and in the test", sorted(_of_identity(by_split["train"]).keys() & tested)
    )
    needed = ("train", "test") if by_split["test"] or not aligned else SPLITS
    if not aligned:
        for split in ("query", "gallery"):
            by_split["test"] += by_split[split]
    faults.add("splits have no image", [split for split in needed if not by_split[split]])
    trained = by_split["train"]
    if not aligned:
        lacking = [name for name in _of_identity(trained) if name not in _seen_in_all(trained, modalities)]
        faults.add(f"training identities have no {' or no '.join(modalities)} image", lacking)
    query, gallery = _test_sides(by_split["test"], modalities, aligned, np.random.default_rng(seed))
    if not aligned:
        return {"train": trained, "query": query, "gallery": gallery}
    return {"train": trained, "query": by_split["query"] + query, "gallery": by_split["gallery"] + gallery}


def _drawn(
    rows: Sequence[_Row], modalities: tuple[str, ...], aligned: bool, drawing: SplitDraw, faults: Faults
) -> tuple[dict[str, list[_Row]], str]:
    """Splits drawn by identity, and how in words."""
    groups = _of_identity(rows)
    possible = sorted(groups if aligned else _seen_in_all(rows, modalities), key=_natural)
    generator = np.random.default_rng(drawing.seed)
    count = min(max(round(drawing.test_share * len(possible)), 1), len(possible) - 2)
    if count < 1:
        what = "" if aligned else f" that are seen in {' and '.join(modalities)}"
        faults.add(f"identities{what} are too few to draw from; there must be three, two to train on", possible)
        return {split: [] for split in SPLITS}, ""
    tested = {possible[i] for i in generator.permutation(len(possible))[:count]} | (groups.keys() - set(possible))
    train = [row for row in rows if row.first.identity not in tested]
    test = [row for row in rows if row.first.identity in tested]
    query, gallery = _test_sides(test, modalities, aligned, generator)
    if not query:
        faults.add(
            "test identities have no second image that a query could find; draw others with --seed", sorted(tested)
        )
    how = f"drawn by identity, {drawing.test_share:g} of them for the test, seed {drawing.seed}"
    return {"train": train, "query": query, "gallery": gallery}, how


def _seen_in_all(rows: Sequence[_Row], modalities: tuple[str, ...]) -> list[str]:
    """Identities with images of all modalities."""
    seen: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        seen[row.first.identity] |= row.images.keys()
    return [name for name, of_name in seen.items() if of_name == set(modalities)]


def _test_sides(
    rows: Sequence[_Row], modalities: tuple[str, ...], aligned: bool, generator: np.random.Generator
) -> tuple[list[_Row], list[_Row]]:
    """Query and gallery of test images.

    Unaligned: infrared and visible images. Aligned: of each identity that several cameras saw, of every camera with
    several images one is a query; where none has several, one image is. Where cameras are not known, of each identity
    with several images one in four is. All others are the gallery.
    """
    if not aligned:
        visible = modalities[0]
        return [row for row in rows if visible not in row.images], [row for row in rows if visible in row.images]
    chosen: set[int] = set()
    for members in _of_identity(rows).values():
        chosen |= {id(row) for row in _queries(members, generator)}
    return [row for row in rows if id(row) in chosen], [row for row in rows if id(row) not in chosen]


def _queries(rows: Sequence[_Row], generator: np.random.Generator) -> list[_Row]:
    """Which images of an identity are queries; every one leaves a right match in the gallery."""
    if not rows[0].first.camera:
        count = max(1, len(rows) // 4) if len(rows) > 1 else 0
        return [rows[i] for i in generator.permutation(len(rows))[:count]]
    by_camera: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        by_camera[row.first.camera].append(row)
    if len(by_camera) < 2:
        return []
    several = [members for members in by_camera.values() if len(members) > 1]
    return [members[generator.integers(len(members))] for members in several or [list(rows)]]


def _check_captions(splits: Mapping[str, Sequence[_Row]], faults: Faults) -> None:
    """Training images and infrared test images need captions, and infrared test identities visible ones."""
    needing = [*splits["train"], *splits["query"]]
    faults.add("images have no caption, but others have", [row.first.file for row in needing if not row.first.caption])
    said = {row.first.identity for row in splits["gallery"] if row.first.caption}
    unsaid = {row.first.identity for row in splits["query"]} - said
    faults.add("infrared test identities have no caption of a visible test image", sorted(unsaid, key=_natural))


def _captions_of(rows: Sequence[_Row]) -> dict[str, tuple[str, ...]]:
    """Identity -> the distinct captions of its images."""
    return {
        identity: tuple(dict.fromkeys(row.first.caption for row in members if row.first.caption))
        for identity, members in _of_identity(rows).items()
    }


def _with_texts(
    rows: Sequence[_Row], samples: Sequence[disk.Sample], visible: Mapping[str, tuple[str, ...]]
) -> list[disk.Sample]:
    """The samples of the rows with their captions, and with those that are `visible` of their identity."""
    return [
        dataclasses.replace(
            sample, text=captions.ImageText(row.first.caption, visible=visible.get(row.first.identity, ()))
        )
        for row, sample in zip(rows, samples, strict=True)
    ]


def _remarks(
    splits: Mapping[str, Sequence[_Row]], modalities: tuple[str, ...], aligned: bool, *, known_cameras: bool
) -> list[str]:
    """What a user should know of the splits."""
    remarks = []
    cameras_of: dict[str, set[str]] = defaultdict(set)
    for row in splits["gallery"]:
        cameras_of[row.first.identity].add(row.first.camera)
    unmatched = [
        row
        for row in splits["query"]
        if not cameras_of[row.first.identity] - ({row.first.camera} if known_cameras else set())
    ]
    if unmatched:
        other = " of another camera" if known_cameras else ""
        remarks.append(
            f"{len(unmatched)} of {len(splits['query'])} queries have no match{other} in the gallery and do not count"
        )
    test = [row for split in ("query", "gallery") for row in splits[split]]
    people = _of_identity(test).keys()
    if aligned:
        if alone := people - _of_identity(splits["query"]).keys():
            remarks.append(
                f"{len(alone)} of {len(people)} test identities are in the gallery alone: no query shows them"
            )
    elif alone := people - set(_seen_in_all(test, modalities)):
        remarks.append(f"{len(alone)} of {len(people)} test identities have images of one spectrum alone")
    return remarks


def _samples(
    rows: Sequence[_Row],
    identities: Mapping[str, int],
    cameras: Mapping[str, int],
    scenes: Mapping[str, int],
    *,
    single: bool,
    train: bool,
) -> list[disk.Sample]:
    people = sorted({identities[row.first.identity] for row in rows})
    rank = {number: position for position, number in enumerate(people)}
    samples = []
    for row in rows:
        first = row.first
        labels = disk.NameLabels(identities[first.identity], cameras[first.camera], scenes[first.scene])
        if single:
            label = rank[labels.identity] if train else -1
            samples.append(disk.Sample(first.file, labels, {"image": first.path}, label, first.modality))
        else:
            images = {name: each.path for name, each in row.images.items()}
            samples.append(disk.Sample(first.file, labels, images))
    return samples


def counts(samples: Mapping[str, Sequence[disk.Sample]]) -> dict[str, tuple[int, int]]:
    """Split -> (samples, identities)."""
    return {
        split: (len(listed), len(Counter(sample.labels.identity for sample in listed)))
        for split, listed in samples.items()
    }
