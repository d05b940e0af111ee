"""Captions of aligned images of three modalities: IDEA's files, read and written.

They lie in a folder ``text`` beside the folders of the splits, a file for each modality of the training samples and of
the test samples (those of query and gallery): ``train_RGB.json``, ``train_NI.json``, ``train_TI.json``,
``test_RGB.json`` and so on. A file is a list of ``{"item": base name of the image, "description": caption}``.

No image must have a caption: the authors' code takes "" where a file does not name it, and so does this. `check` counts
such images.

Reference: "IDEA: Inverted Text with Cooperative Deformable Aggregation for Multi-Modal Object Re-Identification" (CVPR
2025) and the texts by Qwen-VL that its authors released.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence

from mmreid_jax.data.captions import TextForm, damaged
from mmreid_jax.errors import UserError, is_text, printable
from mmreid_jax.paths import read_json, whole

FOLDER = "text"
CAPTIONER = "QwenVL"
"""The captioner whose texts IDEA is trained on."""
FORM = TextForm(aligned=True)

KINDS: Mapping[str, str] = {"rgb": "RGB", "nir": "NI", "tir": "TI"}
"""Modality -> its name in the names of the files."""
PARTS = ("train", "test")

Captions = Mapping[str, Mapping[str, str]]
"""Modality -> base name of an image -> caption."""


def feature(modality: str) -> str:
    """Name of a record's feature that holds the caption of one modality."""
    return f"caption_{modality}"


def part_of(split: str) -> str:
    """The one of `PARTS` whose files speak of a split."""
    return "train" if split == "train" else "test"


def path(root: str | os.PathLike[str], part: str, modality: str) -> pathlib.Path:
    """Where the captions of one part and modality lie, whether they are there or not."""
    return pathlib.Path(root) / FOLDER / f"{part}_{KINDS[modality]}.json"


def captioners(root: str | os.PathLike[str]) -> tuple[str, ...]:
    """`CAPTIONER` where any of the files is there, else nobody."""
    return (CAPTIONER,) if any(file.is_file() for file in _paths(root)) else ()


def fingerprint(root: str | os.PathLike[str]) -> str:
    """A number that changes when any caption changes."""
    digest = hashlib.sha256()
    for file in _paths(root):
        if file.is_file():
            digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def read(root: str | os.PathLike[str], split: str, files: Sequence[str]) -> list[dict[str, str]]:
    """What is said of the samples of a split: modality -> caption, "" for none.

    Args:
      root: folder that holds the splits.
      split: ``train``, ``query`` or ``gallery``.
      files: base names of the samples' images.

    Raises:
      UserError: a file is missing or damaged, or has a caption of none of the images.
    """
    known = {modality: _captions(path(root, part_of(split), modality)) for modality in KINDS}
    for modality, texts in known.items():
        if files and not any(file in texts for file in files):
            raise UserError(
                f"{path(root, part_of(split), modality)} has a caption of none of the {len(files)} images of {split} "
                f"(such as {files[0]}); put the texts of this data set there"
            )
    return [{modality: texts.get(file, "") for modality, texts in known.items()} for file in files]


def check(root: str | os.PathLike[str], files: Mapping[str, Sequence[str]]) -> list[str]:
    """How the captions fit the images, a line for each modality.

    Args:
      root: folder that holds the splits.
      files: split -> base names of its samples' images.

    Raises:
      UserError: a file is missing or damaged.
    """
    names = {part: {file for split, some in files.items() if part_of(split) == part for file in some} for part in PARTS}
    lines = []
    for modality in KINDS:
        counts = []
        for part, images in names.items():
            texts = _captions(path(root, part, modality))
            told = sum(bool(texts.get(file)) for file in images)
            unknown = len(texts.keys() - images)
            counts.append(f"{part} {told} of {len(images)} images, {len(images) - told} without, {unknown} unknown")
        lines.append(f"captions of {modality}: {'; '.join(counts)}")
    return lines


def write(root: str | os.PathLike[str], captioned: Mapping[str, Captions]) -> list[str]:
    """Writes captions as the released ones are, and returns their paths below the root.

    Args:
      root: folder that holds the splits.
      captioned: one of `PARTS` -> the captions of its images.
    """
    made = []
    for part, of_modality in captioned.items():
        for modality, texts in of_modality.items():
            place = path(root, part, modality)
            place.parent.mkdir(parents=True, exist_ok=True)
            listed = [{"item": file, "description": text} for file, text in texts.items()]
            with whole(place) as unfinished:
                unfinished.write_text(json.dumps(listed, indent=4, ensure_ascii=False), encoding="utf-8")
            made.append(place.relative_to(root).as_posix())
    return made


def _paths(root: str | os.PathLike[str]) -> list[pathlib.Path]:
    return [path(root, part, modality) for part in PARTS for modality in KINDS]


def _captions(place: pathlib.Path) -> dict[str, str]:
    """Base name -> caption, without the blanks around it that some of the released ones have."""
    try:
        content = read_json(place)
    except FileNotFoundError:
        raise UserError(f"{place} is missing; get the texts again, or move {place.parent} away to go without") from None
    except (OSError, ValueError) as error:
        raise damaged(place, error) from None
    if not isinstance(content, list):
        raise damaged(place, "it holds no list")
    texts: dict[str, str] = {}
    for number, entry in enumerate(content, start=1):
        name, text = (entry.get("item"), entry.get("description")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(text, str):
            raise damaged(place, f"entry {number} is not an item with a description")
        text = text.strip()
        if not is_text(name) or not is_text(text):
            raise damaged(place, f"entry {number} has letters that are none in UTF-8")
        if texts.setdefault(name, text) != text:
            raise damaged(place, f"it describes {printable(name)} twice, in different words")
    return texts
