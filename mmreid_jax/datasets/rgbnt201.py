"""RGBNT201: persons in aligned visible, near-infrared and thermal images."""

from __future__ import annotations

from mmreid_jax.data.aligned_captions import FORM
from mmreid_jax.datasets import disk, manifests
from mmreid_jax.datasets.base import Dataset, Known
from mmreid_jax.datasets.disk import AlignedFolders
from mmreid_jax.drawn import drawings
from mmreid_jax.drawn.drawings import Drawing, DrawnSample, Size
from mmreid_jax.retrieval.protocols import MARKET


def labels(stem: str) -> disk.NameLabels:
    """Labels of ``PPPPPP_camC_T_FF``: identity, camera 1 to 9 stored from 0, time id T as the scene."""
    identity, camera, time = disk.match_name(r"(\d+)_cam([1-9])_(\d+)(?:_.*)?", stem)
    return disk.NameLabels(int(identity), int(camera) - 1, scene=int(time))


FOLDERS = AlignedFolders(
    name="rgbnt201",
    folder="RGBNT201",
    splits={"train": "train_171", "query": "test", "gallery": "test"},
    images={"rgb": "RGB", "nir": "NI", "tir": "TI"},
    labels=labels,
    file_form="PPPPPP_camC_T_FF.jpg",
    source="RGBNT201 is given by its authors: see github.com/ziwang1121/IEEE (README, section Dataset).",
    captioned=True,
)


def _drawn(split: str, file: str) -> DrawnSample:
    identity, camera, time, frame = drawings.numbers(r"(\d{6})_cam(\d)_(\d)_(\d+)\.jpg", file)
    return DrawnSample(("train",) if split == "train" else ("query", "gallery"), file, identity, camera, time, frame)


def _small(size: Size) -> list[DrawnSample]:
    samples = []
    for split, position, identity in drawings.identities(size):
        for camera, images in enumerate(drawings.spread(size.images_per_identity, size.cameras, position), start=1):
            for frame in range(images):
                # As in the public names, only training images come from a second time.
                late = int(split == "train" and frame >= (images + 1) // 2)
                number = frame - late * ((images + 1) // 2)
                samples.append(_drawn(split, f"{identity:06d}_cam{camera}_{late}_{number:02d}.jpg"))
    return samples


def _full() -> list[DrawnSample]:
    return [_drawn(row["split"], row["file"]) for row in manifests.rows("rgbnt201")]


DRAWING = Drawing(
    name="rgbnt201",
    root=FOLDERS.folder,
    kind="person",
    folders=FOLDERS.split_folders,
    modalities=("rgb", "nir", "tir"),
    small=_small,
    full=_full,
    default=Size(24, 12, 4),
    cameras=4,
    files=drawings.parallel,
    image_folders=FOLDERS.images,
    captions=FORM,
)

DATASET = Dataset(
    description="""\
201 persons seen by four cameras in aligned visible (rgb), near-infrared (nir) and thermal-infrared (tir) images.

4,787 samples: 3,951 of 171 persons for training, 836 of 30 persons for the test. Query and gallery are these 836.""",
    citation="""@inproceedings{zheng2021robust,
  title = {Robust Multi-Modality Person Re-identification},
  author = {Zheng, Aihua and Wang, Zi and Chen, Zihan and Li, Chenglong and Tang, Jin},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  volume = {35},
  number = {4},
  pages = {3529--3537},
  year = {2021},
}""",
    name="rgbnt201",
    folders=FOLDERS,
    published={
        "train": Known(3951, 171, "train"),
        "query": Known(836, 30, "test"),
        "gallery": Known(836, 30, "test"),
    },
    protocols=(MARKET,),
    captions=FORM,
    drawing=DRAWING,
)
