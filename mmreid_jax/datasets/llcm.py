"""LLCM: persons in visible and near-infrared images of nine cameras, taken in low light."""

from __future__ import annotations

import dataclasses
import pathlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

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

CAMERAS: Mapping[str, tuple[int, ...]] = {"rgb": tuple(range(1, 10)), "nir": (1, 2, 4, 5, 6, 7, 8, 9)}
"""Modality -> its cameras; camera 3 takes no infrared images."""

CAPTIONS = TextForm("datasets/llcm/")

_FOLDERS: Mapping[str, str] = {"rgb": "vis", "nir": "nir"}


def labels(stem: str) -> disk.NameLabels:
    """Labels of ``PPPP_cCC_sTTTTTT_fFFFF_<vis or nir>``: identity, and camera 1 to 9 stored from 0."""
    identity, camera = disk.match_name(r"(\d+)_c0([1-9])_s\d+_f\d+_(?:vis|nir)", stem)
    return disk.NameLabels(int(identity), int(camera) - 1, scene=0)


def list_split(folders: SingleFolders, root: pathlib.Path, split: str) -> list[disk.Sample]:
    """The images of a split: of training in the order of its lists, of the test by identity, camera and file.

    Test images are read from the copies sorted by camera (``test_nir/cam1/PPPP/``), as the references do.

    Raises:
      UserError: a list is damaged, names files that are not there or of another form, or test images are missing.
    """
    if split == "train":
        samples = [
            _sample(folders, root, file, label, modality)
            for modality in folders.modalities
            for file, label in disk.listed_images(folders, root, f"idx/train_{_FOLDERS[modality]}.txt")
        ]
        disk.check_class_indices(folders, root, samples)
        return samples
    (modality,) = folders.modalities_of(split)
    folder = f"test_{_FOLDERS[modality]}"
    samples = [
        disk.Sample(
            f"{folder}/cam{camera}/{identity:04d}/{name}",
            disk.NameLabels(identity, camera - 1, scene=0),
            {"image": root / folder / f"cam{camera}" / f"{identity:04d}" / name},
            modality=modality,
        )
        for identity in disk.read_identities(root / "idx" / "test_id.txt")
        for camera in CAMERAS[modality]
        for name in disk.images_in(root / folder / f"cam{camera}" / f"{identity:04d}")
    ]
    listed = [line.split()[0] for line in disk.read_lines(root / "idx" / f"{folder}.txt")]
    if len(samples) < len(listed):
        there = {pathlib.PurePosixPath(sample.file).name for sample in samples}
        absent = [file for file in listed if pathlib.PurePosixPath(file).name not in there]
        raise UserError(
            f"llcm: {root / folder} holds only {len(samples)} of the {len(listed)} images that idx/{folder}.txt lists "
            f"(missing: {disk.few(absent) or 'unknown'}); complete the copy"
        )
    return samples


def _sample(folders: SingleFolders, root: pathlib.Path, file: str, label: int, modality: str) -> disk.Sample:
    parts = pathlib.PurePosixPath(file).parts
    try:
        if len(parts) != 3 or parts[0] != _FOLDERS[modality]:
            raise ValueError(file)
        found_labels = labels(parts[2].rpartition(".")[0])
        if found_labels.identity != int(parts[1]):
            raise ValueError(file)
    except ValueError:
        raise UserError(
            f"{folders.name}: {root / 'idx'} names {file!r}, which is not {_FOLDERS[modality]}/PPPP/"
            f"PPPP_cCC_sTTTTTT_fFFFF_{_FOLDERS[modality]}.jpg; get the lists again"
        ) from None
    return disk.Sample(file, found_labels, {"image": root / file}, label=label, modality=modality)


FOLDERS = SingleFolders(
    name="llcm",
    folder="LLCM",
    expected="{vis,nir}/PPPP/PPPP_cCC_sTTTTTT_fFFFF_{vis,nir}.jpg, LLCM/{test_vis,test_nir}/camC/PPPP/ and "
    "LLCM/idx/{train_vis,train_nir,test_vis,test_nir,test_id}.txt",
    source="LLCM is given by its authors after a signed agreement: see github.com/ZYK100/LLCM.",
    required=(
        "vis",
        "nir",
        "test_vis",
        "test_nir",
        *(f"idx/{name}.txt" for name in ("train_vis", "train_nir", "test_vis", "test_nir", "test_id")),
    ),
    list_split=list_split,
    labels=labels,
    query="nir",
    gallery="rgb",
)


def _drawn(names: Sequence[tuple[str, str]]) -> list[DrawnSample]:
    """The samples of (list, base name), in that order; images of one person, camera and time stamp are one passage."""
    frames: dict[str, int] = {}
    passages: dict[tuple[int, ...], int] = Counter()
    for _, name in sorted(names, key=lambda row: row[1]):
        *passage, infrared, _ = _name_parts(name)
        frames[name] = passages[*passage, infrared]
        passages[*passage, infrared] += 1
    samples = []
    for part, name in names:
        identity, camera, stamp, infrared, _ = _name_parts(name)
        samples.append(
            DrawnSample(
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


def _name_parts(name: str) -> tuple[int, ...]:
    """Identity, camera, time stamp, 1 for infrared, frame."""
    infrared = name.endswith("_nir.jpg")
    identity, camera, stamp, frame = drawings.numbers(r"(\d{4})_c(\d\d)_s(\d{6})_f(\d+)_(?:vis|nir)\.jpg", name)
    return identity, camera, stamp, int(infrared), frame


def _small(size: Size) -> list[DrawnSample]:
    names = []
    # As in the real lists, classes are not numbered in the order of the identities.
    for split, position, identity in sorted(
        drawings.identities(size), key=lambda row: (row[0] == "test", row[2] * 37 % 101, row[2])
    ):
        around = [1 + (position + step) % size.cameras for step in range(size.cameras)]
        seen = {"rgb": around[:2], "nir": [camera for camera in (*around[1:], around[0]) if camera != 3][:2]}
        for modality, images in zip(seen, drawings.spread(size.images_per_identity, 2), strict=True):
            part = _FOLDERS[modality]
            for step, (camera, share) in enumerate(
                zip(seen[modality], drawings.spread(images, len(seen[modality])), strict=True)
            ):
                stamp = 180000 + 100 * (identity % 50) + 10 * step + 5 * (modality == "nir")
                names += [
                    (f"{split}_{part}", f"{identity:04d}_c{camera:02d}_s{stamp}_f{150 + 15 * frame}_{part}.jpg")
                    for frame in range(share)
                ]
    return _drawn(names)


def _full() -> list[DrawnSample]:
    return _drawn([(row["list"], row["file"].split("/")[-1]) for row in manifests.rows("llcm")])


def _files(drawing: Drawing, sample: DrawnSample, split: str) -> dict[str, tuple[str, ...]]:
    part, folder = _FOLDERS[drawings.modality_of(sample)], f"{sample.identity:04d}"
    files: dict[str, tuple[str, ...]] = {f"{part}/{folder}/{sample.file}": (drawings.modality_of(sample),)}
    if split != "train":
        files[f"test_{part}/cam{sample.camera}/{folder}/{sample.file}"] = (drawings.modality_of(sample),)
    return files


def _lists(samples: Sequence[DrawnSample]) -> dict[str, str]:
    classes: dict[bool, dict[int, int]] = {True: {}, False: {}}
    lines = defaultdict(list)
    for sample in samples:
        label = classes[sample.trained_on].setdefault(sample.identity, len(classes[sample.trained_on]))
        part = _FOLDERS[drawings.modality_of(sample)]
        name = f"idx/{'train' if sample.trained_on else 'test'}_{part}.txt"
        lines[name].append(f"{part}/{sample.identity:04d}/{sample.file} {label}\n")
    return {name: "".join(rows) for name, rows in lines.items()} | {
        "idx/test_id.txt": ",".join(map(str, classes[False])) + "\n"
    }


def _protocol(name: str, direction: protocols.Direction, cameras: Sequence[int], swapped: bool = False) -> Protocol:
    return dataclasses.replace(
        protocols.CROSS_MODAL,
        name=name,
        counts="identities",
        direction=direction,
        gallery=Gallery(tuple(camera - 1 for camera in cameras)),
        swapped=swapped,
    )


_INFRARED_TO_VISIBLE = _protocol("llcm_ir_to_vis", protocols.INFRARED_SEARCHES, CAMERAS["rgb"])


def _listed(part: str) -> Iterator[tuple[str, str]]:
    split = {"train_vis": "train", "train_nir": "train", "test_nir": "query", "test_vis": "gallery"}
    for row in manifests.rows("llcm"):
        yield split[row["list"]], pathlib.PurePosixPath(row["file"]).name


def _compared_names(files: Sequence[str]) -> list[str]:
    """The base names: test images lie in two places."""
    return [pathlib.PurePosixPath(file).name for file in files]


DATASET = Dataset(
    description="""\
1,064 persons in visible (rgb) and near-infrared (nir) images of nine cameras, taken in low light.

46,767 images: 16,946 visible and 13,975 infrared ones of 713 persons for training, and of 351 persons for the test
7,166 infrared ones as query and 8,680 visible ones, from which the trials of a protocol draw galleries.""",
    citation="""@inproceedings{zhang2023diverse,
  title = {Diverse Embedding Expansion Network and Low-Light Cross-Modality Benchmark for Visible-Infrared Person
           Re-Identification},
  author = {Zhang, Yukang and Wang, Hanzi},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages = {2153--2162},
  year = {2023},
}""",
    name="llcm",
    folders=FOLDERS,
    published={
        "train": Known(30921, 713, "train"),
        "query": Known(7166, 351, "query"),
        "gallery": Known(8680, 351, "gallery"),
    },
    listed=_listed,
    compared_names=_compared_names,
    protocols=(
        _INFRARED_TO_VISIBLE,
        _protocol("llcm_vis_to_ir", protocols.VISIBLE_SEARCHES, CAMERAS["nir"]),
        # What the repository of LLCM prints as "VIS to IR" since June 2023, and its README reports.
        _protocol("llcm_vis_to_ir_repo", protocols.VISIBLE_SEARCHES, CAMERAS["nir"], swapped=True),
    ),
    peculiar_protocols=(
        # Parity: how TVI-LFM's code scores infrared queries of LLCM (those with text have the usual rule): by the rule
        # of SYSU-MM01. Infrared camera 3 took no pictures, so nothing is removed, and the numbers are too high.
        dataclasses.replace(_INFRARED_TO_VISIBLE, name="llcm_ir_to_vis_as_sysu", removes="camera_2_for_camera_3"),
    ),
    captions=CAPTIONS,
    drawing=Drawing(
        # Zhang and Wang, CVPR 2023: nine cameras above paths, at night and in dim light.
        scenario=Scenario(headings={"towards": 0.45, "away": 0.35, "sideways": 0.20}),
        name="llcm",
        root=FOLDERS.folder,
        kind="person",
        folders=drawings.SINGLE,
        modalities=("rgb", "nir"),
        small=_small,
        full=_full,
        default=Size(24, 24, 9),
        cameras=9,
        files=_files,
        lists=_lists,
        made=tuple(f"test_{part}/cam{camera}" for part in ("vis", "nir") for camera in range(1, 10)),
        captions=CAPTIONS,
    ),
)
