"""RGBNT201-C: the images of RGBNT201 as single ones, for retrieval across two of its modalities.

What is published: IEEE's authors kept the visible and the thermal images "to imitate RegDB", the visible and the
near-infrared ones "to imitate SYSU-MM01", scored three methods on both (table 2), and keep an archive with lists of the
form of RegDB's. The lists are in no repository. Here every image of the public split of RGBNT201 is a sample.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

from mmreid_jax.datasets import disk, manifests, rgbnt201
from mmreid_jax.datasets.base import Dataset, Known
from mmreid_jax.datasets.disk import SingleFolders
from mmreid_jax.drawn.drawings import DrawnSample
from mmreid_jax.retrieval import protocols

INFRARED = {"rgb_tir": "tir", "rgb_nir": "nir"}
"""Part -> its other modality."""
_ALIGNED = rgbnt201.FOLDERS


def list_split(folders: SingleFolders, root: pathlib.Path, split: str) -> list[disk.Sample]:
    """The images of a split by modality, visible ones first, then by name; classes are the ranks of the identities.

    Raises:
      UserError: as `disk.list_samples` of RGBNT201: an image lacks its counterpart, or a name has another form.
    """
    kept = {name: _ALIGNED.images[name] for name in folders.modalities}
    aligned = dataclasses.replace(_ALIGNED, name=folders.name, images=kept).samples(root, split)
    people = sorted({sample.labels.identity for sample in aligned})
    return [
        disk.Sample(
            f"{_ALIGNED.splits[split]}/{_ALIGNED.images[modality]}/{sample.file}",
            sample.labels,
            {"image": sample.images[modality]},
            label=people.index(sample.labels.identity) if split == "train" else -1,
            modality=modality,
        )
        for modality in folders.modalities_of(split)
        for sample in aligned
    ]


def folders(part: str) -> SingleFolders:
    """The layout of one of the two pairs of modalities: that of RGBNT201."""
    used = tuple(_ALIGNED.images[name] for name in ("rgb", INFRARED[part]))
    splits = tuple(dict.fromkeys(_ALIGNED.splits.values()))
    return SingleFolders(
        name=f"rgbnt201_c/{part}",
        folder=_ALIGNED.folder,
        expected=f"{{{','.join(splits)}}}/{{{','.join(used)}}}/{_ALIGNED.file_form}",
        source=_ALIGNED.source,
        required=tuple(f"{split}/{folder}" for split in splits for folder in used),
        list_split=list_split,
        labels=rgbnt201.labels,
        query="rgb",
        gallery=INFRARED[part],
    )


def _listed(part: str) -> Iterator[tuple[str, str]]:
    for row in manifests.rows("rgbnt201"):
        for modality, test in (("rgb", "query"), (INFRARED[part], "gallery")):
            split = "train" if row["split"] == "train" else test
            yield split, f"{_ALIGNED.splits[split]}/{_ALIGNED.images[modality]}/{row['file']}"


def _all_parts(samples: Sequence[DrawnSample], part: str) -> list[DrawnSample]:
    """Both pairs are of the same images."""
    del part
    return list(samples)


_DIRECTIONS = (
    ("visible_to_infrared", protocols.VISIBLE_SEARCHES),
    ("infrared_to_visible", protocols.INFRARED_SEARCHES),
)

DATASET = Dataset(
    description="""\
The images of RGBNT201 one by one, for retrieval between visible (rgb) and thermal (tir) or near-infrared (nir) images.

Every config is one pair of modalities: 3,951 images of each of 171 persons for training, and of 30 persons 836 visible
ones as query and 836 infrared ones as gallery. The split is that of RGBNT201; the lists of the authors' archive are not
public.""",
    citation="""@inproceedings{wang2022interact,
  title = {Interact, Embed, and EnlargE: Boosting Modality-Specific Representations for Multi-Modal Person
           Re-identification},
  author = {Wang, Zi and Li, Chenglong and Zheng, Aihua and He, Ran and Tang, Jin},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  volume = {36},
  number = {3},
  pages = {2633--2641},
  year = {2022},
}""",
    name="rgbnt201_c",
    folders=folders("rgb_tir"),
    published={
        "train": Known(7902, 171, "train"),
        "query": Known(836, 30, "query"),
        "gallery": Known(836, 30, "gallery"),
    },
    listed=_listed,
    parts=tuple(INFRARED),
    folders_of=folders,
    protocols=(
        # "The usage of the dataset is similar to RegDB" (its authors), where nothing is removed.
        *(
            dataclasses.replace(protocols.CROSS_MODAL, name=f"rgbnt201_c_{name}", removes="none", direction=direction)
            for name, direction in _DIRECTIONS
        ),
        # The other modality's image of the same moment is left in the gallery by the above, and is not by these.
        *(
            dataclasses.replace(protocols.CROSS_MODAL, name=f"rgbnt201_c_{name}_other_cameras", direction=direction)
            for name, direction in _DIRECTIONS
        ),
    ),
    drawing=dataclasses.replace(
        rgbnt201.DRAWING, name="rgbnt201_c", configs=tuple(INFRARED), regroup=_all_parts, captions=None
    ),
)
