"""Captions of visible-infrared data: TVI-LFM's text files, read and written, and which caption a query is given.

The texts of a data set lie beside its images in ``Text/<captioner>_<RGB or IR>/``; a captioner is ``Blip`` or ``GIT``:

* ``caption_dict_<captioner>_<RGB or IR>.json``: {path: {"description": caption}};
* ``caption_llm_dict_...json``: {path: {"description": caption, "aug_description": its rephrasing}};
* ``id_caption_map_<captioner>_RGB.json``: {identity: [its distinct visible captions]};
* of SYSU-MM01's training images arrays instead, a row each in the order of training, ``train_text_...npy`` (captions),
  ``train_llm_text_...npy`` (rephrasings) and ``train_text_label_...npy`` (identities).

Paths in the files begin with whatever root their authors had; an image is found by its last three parts, the path below
the root of the data set. LLCM's test images lie in two places and go by the one without the camera.

Reference: "Empowering Visible-Infrared Person Re-Identification with Large Foundation Models" (TVI-LFM, NeurIPS 2024)
and the texts that its authors released.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.paths import read_bytes, read_json

FOLDER = "Text"
CAPTIONER = "Blip"
"""The captioner whose texts TVI-LFM is trained on."""
VISIBLE = "rgb"
DRAWS = ("counter", "reference")
"""How the visible caption of a query is drawn, see `picks`."""

_PATH_PARTS = 3
# Keeps the draw of captions apart from other streams of the same seed (the last word of the counter).
_SERIES = 7


@dataclasses.dataclass(frozen=True)
class TextForm:
    """How the texts of a data set are written.

    Attributes:
      root: how the paths of its images begin in them.
      arrays: whether training captions lie in arrays.
      aligned: whether a sample has a caption of each of its modalities, in the files of `data.aligned_captions`; else
        it is one image, and the texts are those of this module.
    """

    root: str = ""
    arrays: bool = False
    aligned: bool = False


@dataclasses.dataclass(frozen=True)
class TextOptions:
    """Which captions a run reads and how it draws among them.

    Attributes:
      captioner: whose texts, as in the name of their folder.
      rephrased: probability that a training caption gives way to its rephrasing.
      draw: how the visible captions of test queries are drawn, one of DRAWS.
      seed: of that draw.
    """

    captioner: str = CAPTIONER
    rephrased: float = 0.5
    draw: str = "counter"
    seed: int = 1

    def __post_init__(self) -> None:
        """Checks every value; `UserError` names the one that makes no sense."""
        if not 0 <= self.rephrased <= 1:
            raise UserError(f"rephrased is {self.rephrased}; a probability lies between 0 and 1")
        if self.draw not in DRAWS:
            raise UserError(f"caption_draw is {self.draw!r}; choose one of {', '.join(DRAWS)}")
        if self.seed < 0:
            raise UserError(f"caption_seed is {self.seed}; it must not be negative")


class Image(NamedTuple):
    """What is asked of an image: path below the root of the data set, identity, modality."""

    file: str
    identity: int
    modality: str


@dataclasses.dataclass(frozen=True)
class ImageText:
    """What is said of an image.

    Attributes:
      caption: its own.
      rephrased: the same in other words, "" where nobody rephrased it.
      visible: of an infrared test image the captions of all visible images of its identity, as the file lists them.
    """

    caption: str
    rephrased: str = ""
    visible: tuple[str, ...] = ()


class Captioned(NamedTuple):
    """An image and what is said of it, to be written."""

    image: Image
    caption: str
    rephrased: str = ""
    trained_on: bool = False


def captioners(root: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of the captioners whose texts lie in the folder of a data set, none where there is no text."""
    folder = pathlib.Path(root) / FOLDER
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    split = [name.rpartition("_") for name in names]
    return tuple(dict.fromkeys(captioner for captioner, _, kind in split if captioner and kind in ("RGB", "IR")))


def paths(root: str | os.PathLike[str], captioner: str, modality: str) -> dict[str, pathlib.Path]:
    """Where the texts of a captioner about one modality lie, whether they are there or not, by what they hold.

    ``captions``, ``rephrasings`` and ``identities`` are dictionaries; ``train_captions``, ``train_rephrasings`` and
    ``train_identities`` arrays.
    """
    name = f"{captioner}_{'RGB' if modality == VISIBLE else 'IR'}"
    folder = pathlib.Path(root) / FOLDER / name
    files = {
        "captions": f"caption_dict_{name}.json",
        "rephrasings": f"caption_llm_dict_{name}.json",
        "identities": f"id_caption_map_{name}.json",
        "train_captions": f"train_text_{name}.npy",
        "train_rephrasings": f"train_llm_text_{name}.npy",
        "train_identities": f"train_text_label_{name}.npy",
    }
    return {kind: folder / file for kind, file in files.items()}


def fingerprint(root: str | os.PathLike[str], captioner: str, modalities: Sequence[str]) -> str:
    """A number that changes when any text of a captioner changes."""
    digest = hashlib.sha256()
    for modality in modalities:
        for path in paths(root, captioner, modality).values():
            if path.is_file():
                digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def key_of(path: str) -> str:
    """The path that stands for an image in the texts, from its path with any root before it.

    ``.../test_nir/cam2/0003/0001.jpg`` of LLCM is ``nir/0003/0001.jpg``, as training images are named.

    Raises:
      ValueError: the path has fewer than three parts.
    """
    parts = path.replace("\\", "/").split("/")
    if len(parts) < _PATH_PARTS:
        raise ValueError(f"{path!r} is not the path of an image")
    if len(parts) > _PATH_PARTS and parts[-4] in ("test_vis", "test_nir"):
        parts[-3] = parts[-4].removeprefix("test_")
    return "/".join(parts[-_PATH_PARTS:])


def read(root: str | os.PathLike[str], captioner: str, split: str, images: Sequence[Image]) -> list[ImageText]:
    """What is said of the images of a split.

    Every training image has a caption, and a rephrasing where the files hold any; every infrared test image has its own
    caption and the visible captions of its identity. A visible test image has a caption if the files hold one: no
    protocol uses it.

    Args:
      root: folder of the data set.
      captioner: one of `captioners`.
      split: ``train``, ``query`` or ``gallery``.
      images: of the split, those of each modality in the order of the record (arrays go by it).

    Raises:
      UserError: a file is missing, damaged, or does not say anything of an image that it must speak of.
    """
    texts_of_rows: dict[int, ImageText] = {}
    for modality in dict.fromkeys(image.modality for image in images):
        rows = [i for i, image in enumerate(images) if image.modality == modality]
        some = [images[i] for i in rows]
        place = paths(root, captioner, modality)
        if split == "train":
            arrays = place["train_captions"].exists()
            texts = _training_arrays(place, some) if arrays else _training_dictionaries(place, some)
        elif modality == VISIBLE:
            texts = _visible_test(place, some)
        else:
            texts = _infrared_test(place, paths(root, captioner, VISIBLE)["identities"], some)
        texts_of_rows.update(zip(rows, texts, strict=True))
    return [texts_of_rows[i] for i in range(len(images))]


def picks(counts: np.ndarray | Sequence[int], draw: str, seed: int) -> np.ndarray:
    """Which of its identity's visible captions every query is given, once for all: int64 [Q].

    Args:
      counts: int [Q], number of captions to choose from.
      draw: ``counter``: position i of the result depends on the seed and on i alone; ``reference``: numpy's legacy
        generator, one draw a query, in their order, as the released code's queries have them.
      seed: of the draw; the released code's is 1.
    """
    number = np.asarray(counts, np.int64)
    if draw == "reference":
        generator = np.random.RandomState(seed)
        return np.array([generator.randint(0, count) for count in number], np.int64)
    stream = np.random.Philox(key=np.array([seed, 0], np.uint64), counter=np.array([0, 0, 0, _SERIES], np.uint64))
    return (np.random.Generator(stream).random(len(number)) * number).astype(np.int64)


def choose(captions: np.ndarray, rephrased: np.ndarray, chance: np.ndarray, share: float) -> np.ndarray:
    """Training captions [...]: rephrased where the number in [0, 1) that was drawn for them is below `share`."""
    return np.where(chance < share, rephrased, captions)


def write(root: str | os.PathLike[str], captioner: str, form: TextForm, captioned: Sequence[Captioned]) -> list[str]:
    """Writes the texts of a data set as the released ones are, and returns their paths below the root.

    Files of rephrasings are written where every caption has one.

    Args:
      root: folder of the data set.
      captioner: name of who wrote the captions.
      form: of the texts of the data set.
      captioned: all images.
    """
    made = []
    for modality in dict.fromkeys(entry.image.modality for entry in captioned):
        entries = [entry for entry in captioned if entry.image.modality == modality]
        place = paths(root, captioner, modality)
        rephrased = all(entry.rephrased for entry in entries)
        contents: dict[str, Any] = {
            "captions": {form.root + key_of(e.image.file): {"description": e.caption} for e in entries}
        }
        if form.arrays:
            trained = sorted((e for e in entries if e.trained_on), key=lambda e: (e.image.identity, e.image.file))
            width = 4 if modality == VISIBLE else 1
            contents["train_captions"] = np.array([e.caption for e in trained], np.str_)
            contents["train_identities"] = np.array([f"{e.image.identity:0{width}d}" for e in trained], np.str_)
            if rephrased:
                contents["train_rephrasings"] = np.array([e.rephrased for e in trained], np.str_)
        elif rephrased:
            contents["rephrasings"] = {
                form.root + key_of(e.image.file): {"description": e.caption, "aug_description": e.rephrased}
                for e in entries
            }
        if modality == VISIBLE:
            by_identity: dict[str, dict[str, None]] = {}
            for entry in entries:
                by_identity.setdefault(str(entry.image.identity), {})[entry.caption] = None
            contents["identities"] = {identity: list(texts) for identity, texts in by_identity.items()}
        place["captions"].parent.mkdir(parents=True, exist_ok=True)
        for kind, content in contents.items():
            _write(place[kind], content)
            made.append(place[kind].relative_to(root).as_posix())
    return made


def _write(path: pathlib.Path, content: Any) -> None:
    """Writes an array or a dictionary; the file is there when it is complete."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as stream:
            if isinstance(content, np.ndarray):
                np.save(stream, content, allow_pickle=False)
            else:
                stream.write(json.dumps(content, indent=1, ensure_ascii=False).encode(errors="backslashreplace"))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _training_arrays(place: Mapping[str, pathlib.Path], images: Sequence[Image]) -> list[ImageText]:
    captions = _array(place["train_captions"], len(images)).tolist()
    rephrased = [""] * len(images)
    if place["train_rephrasings"].exists():
        rephrased = _array(place["train_rephrasings"], len(images)).tolist()
    if place["train_identities"].exists():
        labels = _array(place["train_identities"], len(images)).tolist()
        for row, (label, image) in enumerate(zip(labels, images, strict=True)):
            if not label.isdecimal() or int(label) != image.identity:
                raise UserError(
                    f"{place['train_identities']} says that row {row} is of identity {label!r}, but training image "
                    f"{row} is {image.file}; the texts belong to another order or another copy of the images"
                )
    return [ImageText(caption, other) for caption, other in zip(captions, rephrased, strict=True)]


def _training_dictionaries(place: Mapping[str, pathlib.Path], images: Sequence[Image]) -> list[ImageText]:
    if place["rephrasings"].exists():
        return _looked_up(place["rephrasings"], images, rephrased=True)
    if place["captions"].exists():
        return _looked_up(place["captions"], images)
    raise UserError(
        f"no captions of training images: neither {place['rephrasings']} nor {place['captions']} nor "
        f"{place['train_captions'].name} is there; get the texts again, or move {place['captions'].parent.parent} away "
        "to go without"
    )


def _visible_test(place: Mapping[str, pathlib.Path], images: Sequence[Image]) -> list[ImageText]:
    known = _dictionary(place["captions"]) if place["captions"].exists() else {}
    return [known.get(key_of(image.file), ImageText("")) for image in images]


def _infrared_test(
    place: Mapping[str, pathlib.Path], identities: pathlib.Path, images: Sequence[Image]
) -> list[ImageText]:
    visible = _identity_captions(identities)
    absent = sorted({image.identity for image in images} - set(visible))
    if absent:
        raise UserError(
            f"{identities} has no visible captions of {len(absent)} of the test identities ({_few(absent)}); "
            "get the texts again"
        )
    texts = _looked_up(place["captions"], images)
    return [ImageText(text.caption, "", visible[image.identity]) for text, image in zip(texts, images, strict=True)]


def _looked_up(path: pathlib.Path, images: Sequence[Image], rephrased: bool = False) -> list[ImageText]:
    known = _dictionary(path, rephrased)
    absent = [image.file for image in images if key_of(image.file) not in known]
    if absent:
        raise UserError(
            f"{path} has no caption of {len(absent)} of {len(images)} images ({_few(absent)}); get the texts again"
        )
    return [known[key_of(image.file)] for image in images]


def _dictionary(path: pathlib.Path, rephrased: bool = False) -> dict[str, ImageText]:
    """Path below the root -> caption (and rephrasing)."""
    texts: dict[str, ImageText] = {}
    for name, entry in _json(path).items():
        try:
            key = key_of(name)
            text = ImageText(entry["description"], entry["aug_description"] if rephrased else "")
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(path, f"entry {name!r} is not a path with a description ({error})") from None
        if not isinstance(text.caption, str) or not isinstance(text.rephrased, str):
            raise damaged(path, f"the description of {name!r} is not a text")
        if texts.setdefault(key, text) != text:
            raise damaged(path, f"it describes {key} twice, in different words")
    return texts


def _identity_captions(path: pathlib.Path) -> dict[int, tuple[str, ...]]:
    captions = {}
    for name, listed in _json(path).items():
        texts = isinstance(listed, list) and listed and all(isinstance(text, str) for text in listed)
        if not name.isdecimal() or not texts:
            raise damaged(path, f"entry {name!r} is not an identity with a list of captions")
        captions[int(name)] = tuple(listed)
    return captions


def _json(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError) as error:
        raise damaged(path, error) from None
    if not isinstance(content, dict):
        raise damaged(path, "it holds no dictionary")
    return content


def _array(path: pathlib.Path, rows: int) -> np.ndarray:
    """The texts of an array file, str [rows]."""
    try:
        content = np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError, EOFError) as error:
        raise damaged(path, error) from None
    if not isinstance(content, np.ndarray) or content.dtype.kind != "U" or content.ndim != 1:
        raise damaged(path, "it is not a list of texts")
    if len(content) != rows:
        raise UserError(
            f"{path} has {len(content)} rows for {rows} training images; the texts belong to another copy of the images"
            ", or images are missing"
        )
    return content


def _missing(path: pathlib.Path) -> UserError:
    return UserError(f"{path} is missing; get the texts again, or move {path.parent.parent} away to go without")


def damaged(path: pathlib.Path, cause: object) -> UserError:
    """What to say of a file of texts that cannot be read."""
    return UserError(f"{path} is damaged ({cause}); get the texts again")


def _few(names: Sequence[Any], limit: int = 3) -> str:
    listed = ", ".join(map(str, names[:limit]))
    return listed if len(names) <= limit else f"{listed} and {len(names) - limit} more"
