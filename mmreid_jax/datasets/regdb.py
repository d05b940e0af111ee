"""RegDB: persons in visible and thermal images, with ten splits of its identities."""

from __future__ import annotations

import dataclasses
import pathlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mmreid_jax.data.captions import TextForm
from mmreid_jax.datasets import disk, manifests
from mmreid_jax.datasets.base import Dataset, Known
from mmreid_jax.datasets.disk import SingleFolders
from mmreid_jax.drawn import drawings
from mmreid_jax.drawn.attributes import Scenario
from mmreid_jax.drawn.drawings import Drawing, DrawnSample, Size
from mmreid_jax.drawn.streams import generator
from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import protocols

TRIALS = tuple(range(1, 11))
CAPTIONS = TextForm("datasets/regdb/")
_FOLDERS: Mapping[str, str] = {"rgb": "Visible", "tir": "Thermal"}


def labels(stem: str) -> disk.NameLabels:
    """Labels of ``<sex>_<side>_<v or t>_FFFFF_P``: identity P; the visible camera is 0, the thermal one 1."""
    letter, identity = disk.match_name(r".*_([vt])_\d+_(\d+)", stem)
    return disk.NameLabels(int(identity), int(letter == "t"), scene=0)


def list_split(folders: SingleFolders, root: pathlib.Path, split: str) -> list[disk.Sample]:
    """The images of a split in the order of its lists, visible ones first; the identity is the folder's number.

    The class index of a training image is the second column of its line; the lists of the two modalities agree on it.

    Raises:
      UserError: a list is damaged or names files that are not there, or the lists of training disagree on a class.
    """
    trial = int(folders.name.rpartition("_")[2])
    samples = []
    for modality in folders.modalities_of(split):
        path = f"idx/{'train' if split == 'train' else 'test'}_{_FOLDERS[modality].lower()}_{trial}.txt"
        for file, label in disk.listed_images(folders, root, path):
            parts = pathlib.PurePosixPath(file).parts
            if len(parts) != 3 or parts[0] != _FOLDERS[modality] or not parts[1].isdecimal():
                raise UserError(
                    f"{folders.name}: {root / path} names {file!r}, which is not {_FOLDERS[modality]}/<identity>/"
                    "<name>.bmp; get the list again"
                )
            samples.append(
                disk.Sample(
                    file,
                    disk.NameLabels(int(parts[1]), int(modality == "tir"), scene=0),
                    {"image": root / file},
                    label=label if split == "train" else -1,
                    modality=modality,
                )
            )
    if split == "train":
        disk.check_class_indices(folders, root, samples)
    return samples


def folders(trial: int) -> SingleFolders:
    """The layout of one of the ten splits."""
    lists = tuple(
        f"idx/{part}_{folder.lower()}_{trial}.txt" for part in ("train", "test") for folder in _FOLDERS.values()
    )
    return SingleFolders(
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


FOLDERS = folders(1)


def _folders_of(part: str) -> SingleFolders:
    return folders(int(part.removeprefix("trial_")))


def _drawn(file: str, frame: int) -> DrawnSample:
    """Image `frame` (from 0) of one modality. Both cameras see the same passage, but never at the same moment."""
    modality = "rgb" if "_v_" in file else "tir"
    (identity,) = drawings.numbers(r".*_(\d+)\.bmp", file)
    thermal = modality == "tir"
    return DrawnSample(
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


def _small(size: Size) -> list[DrawnSample]:
    samples = []
    for _, _, identity in drawings.identities(size):
        who = f"{('male', 'female')[identity % 2]}_{('front', 'back')[identity // 2 % 2]}"
        for letter, images in zip("vt", drawings.spread(size.images_per_identity, 2), strict=True):
            names = [f"{who}_{letter}_{11 * identity + 2 * frame:05d}_{identity}.bmp" for frame in range(images)]
            samples += [_drawn(name, frame) for frame, name in enumerate(names)]
    return samples


def _full() -> list[DrawnSample]:
    names = sorted(row["file"].split("/")[-1] for row in manifests.rows("regdb_images"))
    groups = defaultdict(list)
    for name in names:
        identity = int(name.rpartition("_")[2].removesuffix(".bmp"))
        groups[identity, "_t_" in name].append(name)
    return [_drawn(name, frame) for key in sorted(groups) for frame, name in enumerate(groups[key])]


def _trial(identities: Sequence[int], trial: int) -> tuple[list[int], list[int]]:
    """Training and test identities of a split in the order of its lists; the public split where these are everybody."""
    public: dict[str, list[int]] = {"train": [], "test": []}
    for row in manifests.rows("regdb_splits"):
        if int(row["trial"]) == trial:
            public[row["split"]].append(int(row["id"]))
    if set(identities) == {*public["train"], *public["test"]}:
        return public["train"], public["test"]
    order = generator(trial, "regdb split").permutation(np.array(sorted(identities))).tolist()
    return order[: len(order) // 2], order[len(order) // 2 :]


def _regroup(samples: Sequence[DrawnSample], config: str) -> list[DrawnSample]:
    trial = int(config.removeprefix("trial_"))
    trained = set(_trial(sorted({sample.identity for sample in samples}), trial)[0])
    test = {"rgb": "query", "tir": "gallery"}
    return [
        dataclasses.replace(
            sample, splits=("train" if sample.identity in trained else test[drawings.modality_of(sample)],)
        )
        for sample in samples
    ]


def _files(drawing: Drawing, sample: DrawnSample, split: str) -> dict[str, tuple[str, ...]]:
    modality = drawings.modality_of(sample)
    return {f"{_FOLDERS[modality]}/{sample.identity}/{sample.file}": (modality,)}


def _lists(samples: Sequence[DrawnSample]) -> dict[str, str]:
    files = defaultdict(list)
    for sample in samples:
        files[sample.identity, drawings.modality_of(sample)].append(sample.file)
    identities = sorted({sample.identity for sample in samples})
    lists = {}
    for trial in TRIALS:
        for part, order in zip(("train", "test"), _trial(identities, trial), strict=True):
            for modality, folder in _FOLDERS.items():
                lists[f"idx/{part}_{folder.lower()}_{trial}.txt"] = "".join(
                    f"{folder}/{identity}/{file} {label}\n"
                    for label, identity in enumerate(order)
                    for file in sorted(files[identity, modality])
                )
    return lists


def _listed(part: str) -> Iterator[tuple[str, str]]:
    trial = part.removeprefix("trial_")
    splits = {row["id"]: row["split"] for row in manifests.rows("regdb_splits") if row["trial"] == trial}
    for row in manifests.rows("regdb_images"):
        folder, identity, _ = row["file"].split("/")
        split = {"Visible": "query", "Thermal": "gallery"}[folder] if splits[identity] == "test" else "train"
        yield split, row["file"]


DATASET = Dataset(
    description="""\
412 persons with ten visible (rgb) and ten thermal (tir) images each, in ten random splits of the persons.

Every config is one split: of 206 persons 2,060 images of each modality for training, of the other 206 persons 2,060
visible images as query and 2,060 thermal ones as gallery. Results are means over the ten.""",
    citation="""@article{nguyen2017person,
  title = {Person Recognition System Based on a Combination of Body Images from Visible Light and Thermal Cameras},
  author = {Nguyen, Dat Tien and Hong, Hyung Gil and Kim, Ki Wan and Park, Kang Ryoung},
  journal = {Sensors},
  volume = {17},
  number = {3},
  pages = {605},
  year = {2017},
}""",
    name="regdb",
    folders=FOLDERS,
    published={
        "train": Known(4120, 206, "train"),
        "query": Known(2060, 206, "query"),
        "gallery": Known(2060, 206, "gallery"),
    },
    listed=_listed,
    parts=tuple(f"trial_{trial}" for trial in TRIALS),
    folders_of=_folders_of,
    protocols=tuple(
        dataclasses.replace(protocols.CROSS_MODAL, name=name, removes="none", direction=direction)
        for name, direction in (
            ("regdb_visible_to_thermal", protocols.VISIBLE_SEARCHES),
            ("regdb_thermal_to_visible", protocols.INFRARED_SEARCHES),
        )
    ),
    captions=CAPTIONS,
    drawing=Drawing(
        name="regdb",
        root=FOLDERS.folder,
        kind="person",
        folders=drawings.SINGLE,
        modalities=("rgb", "tir"),
        small=_small,
        full=_full,
        default=Size(24, 20, 2),
        cameras=2,
        files=_files,
        lists=_lists,
        moved=False,  # everybody is trained on in some split
        native_size=(128, 64),
        configs=tuple(f"trial_{trial}" for trial in TRIALS),
        regroup=_regroup,
        # Nguyen et al., Sensors 2017: seen from above at one place, walking to or from it as the file's name says.
        scenario=Scenario(spread=0.12, turn=0.25),
        captions=CAPTIONS,
    ),
)
