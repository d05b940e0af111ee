"""MSVR310: vehicles in visible, near-infrared and thermal images, with long time spans."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

from mmreid_jax.data.aligned_captions import FORM
from mmreid_jax.datasets import disk, manifests
from mmreid_jax.datasets.base import Dataset, Known
from mmreid_jax.datasets.disk import AlignedFolders
from mmreid_jax.drawn import drawings
from mmreid_jax.drawn.drawings import Drawing, DrawnSample, Size
from mmreid_jax.retrieval.protocols import Protocol


def labels(stem: str) -> disk.NameLabels:
    """Labels of ``IIII_sSSS_vV_FFF``: identity, view 0 to 7 as the camera, time span as the scene."""
    identity, scene, view = disk.match_name(r"(\d{4})_s(\d{3})_v([0-7])(?:_.*)?", stem)
    return disk.NameLabels(int(identity), int(view), int(scene))


FOLDERS = AlignedFolders(
    name="msvr310",
    folder="MSVR310",
    splits={"train": "bounding_box_train", "query": "query3", "gallery": "bounding_box_test"},
    images={"rgb": "vis", "nir": "ni", "tir": "th"},
    labels=labels,
    file_form="IIII_sSSS_vV_FFF.jpg",
    source="MSVR310 is given by its authors (A. Zheng, Anhui University): see aihuazheng.github.io.",
    folder_per_identity=True,
    captioned=True,
)


def _drawn(split: str, file: str) -> DrawnSample:
    identity, scene, view, frame = drawings.numbers(r"(\d{4})_s(\d{3})_v([0-7])_(\d{3})\.jpg", file)
    # All views of one scene are taken in one place at one time, so the place is the scene's.
    place = 1 + scene % 8
    return DrawnSample(("train",) if split == "train" else ("gallery",), file, identity, place, scene, frame, view)


def _queries_of_several_scenes(samples: list[DrawnSample]) -> list[DrawnSample]:
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


def _small(size: Size) -> list[DrawnSample]:
    samples = []
    for split, position, identity in drawings.identities(size):
        scenes = (
            1 if position % 3 == 2 else min(3, size.images_per_identity)
        )  # many vehicles are seen in one scene only
        number = 0
        for step, images in enumerate(drawings.spread(size.images_per_identity, scenes)):
            scene = (3 * identity + 11 * step) % 40
            for image in range(images):
                view = (identity + 3 * image + step) % size.cameras
                samples.append(_drawn(split, f"{identity:04d}_s{scene:03d}_v{view}_{number:03d}.jpg"))
                number += 1
    return _queries_of_several_scenes(samples)


def _full() -> list[DrawnSample]:
    return _queries_of_several_scenes([_drawn(row["split"], row["file"]) for row in manifests.rows("msvr310")])


DATASET = Dataset(
    description="""\
310 vehicles in aligned visible (rgb), near-infrared (nir) and thermal-infrared (tir) images from eight views.

2,087 samples. The scene is the time span; a query is not compared with samples of its identity and scene.""",
    citation="""@article{zheng2023cross,
  title = {Cross-directional consistency network with adaptive layer normalization for multi-spectral vehicle
           re-identification and a high-quality benchmark},
  author = {Zheng, Aihua and Zhu, Xianpeng and Ma, Zhiqi and Li, Chenglong and Tang, Jin and Ma, Jixin},
  journal = {Information Fusion},
  volume = {100},
  year = {2023},
}""",
    name="msvr310",
    folders=FOLDERS,
    published={
        "train": Known(1032, 155, "train"),
        "query": Known(591, None, "test", part_of_list=True, unverified=(None, 52)),
        "gallery": Known(1055, 155, "test"),
    },
    protocols=(Protocol("msvr310", removes="same_identity_same_scene"),),
    captions=FORM,
    drawing=Drawing(
        name="msvr310",
        root=FOLDERS.folder,
        kind="vehicle",
        folders=FOLDERS.split_folders,
        modalities=("rgb", "nir", "tir"),
        small=_small,
        full=_full,
        default=Size(24, 12, 8),
        cameras=8,
        files=drawings.by_identity,
        image_folders=FOLDERS.images,
        captions=FORM,
    ),
)
