"""Market1501-MM: Market-1501 with made near-infrared and thermal images."""

from __future__ import annotations

from collections.abc import Sequence

from mmreid_jax.datasets import disk
from mmreid_jax.datasets.base import Dataset, Known
from mmreid_jax.datasets.disk import AlignedFolders
from mmreid_jax.drawn import drawings
from mmreid_jax.drawn.attributes import Scenario
from mmreid_jax.drawn.drawings import Drawing, DrawnSample, Size
from mmreid_jax.retrieval.protocols import MARKET


def labels(stem: str) -> disk.NameLabels:
    """Labels of ``PPPP_cCsS_FFFFFF_BB``: identity (-1 junk, 0 distractor), camera stored from 0, scene.

    The scene is the second digit of BB: HTT reads it as a time id.
    """
    identity, camera, scene = disk.match_name(r"(-1|\d+)_c([1-6])s\d_\d+_\d(\d)(?:\D.*)?", stem)
    return disk.NameLabels(int(identity), int(camera) - 1, int(scene))


FOLDERS = AlignedFolders(
    name="market1501_mm",
    folder="market1501_to_RGBNT201_dark",
    splits={"train": "train", "query": "query", "gallery": "gallery"},
    images={"rgb": "RGB", "nir": "NI", "tir": "TI"},
    labels=labels,
    file_form="PPPP_cCsS_FFFFFF_BB.jpg",
    source="Market1501-MM is made by the authors of IEEE (AAAI 2022): ask them, see github.com/ziwang1121/IEEE.",
)


def _drawn(splits: tuple[str, ...], identity: int, camera: int, frame: int, box: int) -> DrawnSample:
    name = f"{identity:04d}" if identity >= 0 else str(identity)
    sequence = 1 + (frame // 6) % 6
    file = f"{name}_c{camera}s{sequence}_{(frame * 25 + 151 + 1000 * (identity % 97)) % 10**6:06d}_{box:02d}.jpg"
    return DrawnSample(splits, file, identity, camera, sequence, frame)


def _persons(split: str, counts: Sequence[tuple[int, Sequence[int]]], queries: int) -> list[DrawnSample]:
    """Training images, or gallery images and at most `queries` further ones, one for each identity and camera."""
    samples = []
    for identity, per_camera in counts:
        for camera, images in enumerate(per_camera, start=1):
            for frame in range(images):
                place = "train" if split == "train" else "gallery"
                samples.append(_drawn((place,), identity, camera, frame + 1, 1 + frame % 4))
    if split == "test":
        seen = [(i, c) for i, per_camera in counts for c, images in enumerate(per_camera, start=1) if images]
        # A query sees its identity at a moment of its own; frame 0 is kept free for it.
        samples += [_drawn(("query",), identity, camera, 0, 0) for identity, camera in seen[:queries]]
    return samples


def _nobody(junk: int, distractors: int, cameras: int) -> list[DrawnSample]:
    return [
        _drawn(("gallery",), identity, 1 + number % cameras, number, 1 + number % 4)
        for identity, count in ((drawings.JUNK, junk), (drawings.DISTRACTOR, distractors))
        for number in range(count)
    ]


def _small(size: Size) -> list[DrawnSample]:
    counts = {"train": [], "test": []}  # type: dict[str, list[tuple[int, list[int]]]]
    for split, position, identity in drawings.identities(size):
        counts[split].append((identity, drawings.spread(size.images_per_identity, size.cameras, position)))
    some = max(1, size.identities // 4)
    people = _persons("train", counts["train"], 0) + _persons("test", counts["test"], 10**9)
    return people + _nobody(some, some, size.cameras)


def _full() -> list[DrawnSample]:
    # 12,936 training images of 751 persons; 3,368 queries of 750 persons, one for each camera that saw the person;
    # 19,732 gallery images: 13,115 of these persons, 3,819 junk boxes and 2,798 distractors.
    train = [(1 + i, drawings.spread(n, 6, i)) for i, n in enumerate(drawings.spread(12936, 751))]
    test = []
    for i, (images, seen) in enumerate(zip(drawings.spread(13115, 750), drawings.spread(3368, 750, 7), strict=True)):
        shares = drawings.spread(images, seen)
        test.append((752 + i, [shares[(camera - i) % 6] if (camera - i) % 6 < seen else 0 for camera in range(6)]))
    return _persons("train", train, 0) + _persons("test", test, 3368) + _nobody(3819, 2798, 6)


DATASET = Dataset(
    description="""\
Market-1501 with three images a sample, of which two are made from the first.

rgb is the image of Market-1501 darkened by 60 per cent, nir its grey version, tir made from it by a CycleGAN.
Identity -1 marks junk boxes, identity 0 distractors.""",
    citation="""@inproceedings{wang2022interact,
  title = {Interact, Embed, and EnlargE: Boosting Modality-Specific Representations for Multi-Modal Person
           Re-identification},
  author = {Wang, Zi and Li, Chenglong and Zheng, Aihua and He, Ran and Tang, Jin},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  volume = {36},
  number = {3},
  pages = {2633--2641},
  year = {2022},
}
@inproceedings{zheng2015scalable,
  title = {Scalable Person Re-identification: A Benchmark},
  author = {Zheng, Liang and Shen, Liyue and Tian, Lu and Wang, Shengjin and Wang, Jingdong and Tian, Qi},
  booktitle = {Proceedings of the IEEE International Conference on Computer Vision},
  pages = {1116--1124},
  year = {2015},
}""",
    name="market1501_mm",
    folders=FOLDERS,
    published={
        "train": Known(unverified=(None, 751)),
        "query": Known(unverified=(None, 750)),
        "gallery": Known(unverified=(None, 751)),  # 750 persons, and the distractors
    },
    protocols=(MARKET,),
    drawing=Drawing(
        # Zheng et al., ICCV 2015: six cameras in front of a supermarket, by day; people cross in all directions.
        scenario=Scenario(headings={"towards": 0.35, "away": 0.35, "sideways": 0.30}),
        name="market1501_mm",
        root=FOLDERS.folder,
        kind="person",
        folders=FOLDERS.split_folders,
        modalities=("rgb", "nir", "tir"),
        small=_small,
        full=_full,
        default=Size(24, 12, 6),
        cameras=6,
        files=drawings.parallel,
        darken=0.4,
        image_folders=FOLDERS.images,
    ),
)
