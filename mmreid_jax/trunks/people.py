"""The drawn people that trunks are trained on: many, in front of many cameras, and apart from everybody else.

Identities and cameras follow from a seed (`mmreid_jax.drawn`), so people of different seeds have nothing in common.
Experiments draw with seeds below `drawn.RESERVED_SEEDS`; trunks with one of these.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from mmreid_jax import drawn
from mmreid_jax.drawn.attributes import COLOURS, FABRICS, HAIR_COLOURS, luminance

BLOCK = 100
"""People in one file."""
CAMERAS = 100
VIEWS = 5
"""Images of each person, each from another passage in front of one of the cameras."""
MODALITIES = ("rgb", "nir", "tir")
CHANNELS = (slice(0, 3), slice(3, 4), slice(4, 5))
"""Where each of the MODALITIES stands in the last axis of the images."""
_DRAWN_SIZE = (128, 64)
_AT_ONCE = 24  # cameras of one block; their backgrounds are kept in memory

_COLOURED = {
    "upper colour": tuple(COLOURS),
    "upper accent": tuple(COLOURS),
    "inner colour": tuple(COLOURS),
    "lower colour": tuple(COLOURS),
    "shoe colour": tuple(COLOURS),
    "bag colour": tuple(COLOURS),
    "hat colour": tuple(COLOURS),
    "hair colour": tuple(HAIR_COLOURS),
}
_SHAPED = {
    "sex": ("man", "woman"),
    "build": ("slim", "average", "heavy"),
    "hair": ("short", "bald", "bob", "long", "bun"),
    "hat": ("none", "cap", "beanie"),
    "glasses": ("no", "yes"),
    "upper": ("t-shirt", "shirt", "jacket", "hoodie", "coat"),
    "upper pattern": ("plain", "stripes", "checks", "print"),
    "lower": ("trousers", "shorts", "skirt"),
    "lower pattern": ("plain", "checks"),
    "shoes": ("sneakers", "boots", "shoes"),
    "bag": ("none", "backpack", "shoulder bag", "handbag"),
}
_WARMTH = {
    "warm spot": ("chest", "shoulders", "belly", "back", "none"),
    "face": (0.84, 0.89, 0.94, 0.99),
    "hands": (0.5, 0.64, 0.78, 0.92),
    **{f"heat {number}": (-0.09, 0.0, 0.09) for number in range(6)},
}
_FABRIC = {f"{part} fabric": tuple(FABRICS) for part in ("upper", "lower", "bag")}
_BANDS = (0.15, 0.3, 0.45, 0.6, 0.75)
_LIGHTNESS = {f"{part} lightness": tuple(range(6)) for part in ("upper", "lower", "shoes")}
_REFLECTANCE = {f"{part} reflectance": tuple(range(6)) for part in ("upper", "lower", "shoes")}

QUESTIONS: Mapping[str, tuple[object, ...]] = {
    **_COLOURED,
    **_SHAPED,
    **_WARMTH,
    **_FABRIC,
    **_LIGHTNESS,
    **_REFLECTANCE,
}
"""What a trunk learns to name -> the answers."""

ASKED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys((*_COLOURED, *_LIGHTNESS), ("rgb",)),
    **dict.fromkeys(_SHAPED, MODALITIES),
    **dict.fromkeys(_FABRIC, ("nir", "tir")),
    **dict.fromkeys(_REFLECTANCE, ("nir",)),
    **dict.fromkeys(_WARMTH, ("tir",)),
}
"""Question -> the modalities that can answer it; colours and lightness by day and at dusk only."""
BY_LIGHT = frozenset((*_COLOURED, *_LIGHTNESS))
"""Questions that are not asked at night."""
UNKNOWN = -1


@dataclasses.dataclass(frozen=True)
class People:
    """Images of drawn people.

    Attributes:
      images: uint8 [N, H, W, 5]: red, green, blue, near infrared, thermal.
      identity: int32 [N], from 0.
      night: bool [N].
      answers: int32 [people, questions], UNKNOWN where a question does not arise (the colour of no bag).
    """

    images: np.ndarray
    identity: np.ndarray
    night: np.ndarray
    answers: np.ndarray


def answers(person: drawn.Person) -> list[int]:
    """Answer to each of the QUESTIONS about a person, by its place among the answers."""
    words: dict[str, object] = dict(drawn.describe(person))
    if person.upper.pattern == "plain":
        del words["upper accent"]
    if person.upper.kind != "jacket":
        del words["inner colour"]
    if person.bag == "none":
        del words["bag colour"]
    if person.hat == "none":
        del words["hat colour"]
    if person.hair == "bald":
        del words["hair colour"]
    words |= {"warm spot": person.warm_spot, "face": person.face_temperature, "hands": person.hand_temperature}
    words |= {f"heat {number}": value for number, value in enumerate(person.heat)}
    for part, garment in (("upper", person.upper), ("lower", person.lower), ("shoes", person.shoes)):
        words[f"{part} lightness"] = int(np.searchsorted(_BANDS, luminance(garment.rgb) ** 0.5))
        words[f"{part} reflectance"] = int(np.searchsorted(_BANDS, garment.nir))
    words |= {"upper fabric": person.upper.fabric, "lower fabric": person.lower.fabric}
    if person.bag != "none":
        words["bag fabric"] = person.bag_garment.fabric
    return [known.index(words[name]) if name in words else UNKNOWN for name, known in QUESTIONS.items()]


def draw_block(block: int, folder: pathlib.Path, seed: int, size: tuple[int, int]) -> pathlib.Path:
    """Draws the people of one block into a file, unless it is there already."""
    from PIL import Image

    file = folder / f"{seed}-{size[0]}x{size[1]}-{block:03d}.npz"
    if file.is_file():
        return file
    images = np.empty((BLOCK, VIEWS, *size, 5), np.uint8)
    night = np.empty((BLOCK, VIEWS), bool)
    told = []
    for row in range(BLOCK):
        index = 1 + block * BLOCK + row
        person = drawn.person_identity(seed, index)
        told.append(answers(person))
        for view in range(VIEWS):
            # Any camera, with its sensor as it is or moved, as in the test splits of drawn data.
            camera = 1 + (7 * block + (5 * row + 3 * view) % _AT_ONCE) % CAMERAS
            split = "test" if (index + view) % 2 else "train"
            moment = drawn.shot(seed, index, camera, scene=view, split=split, size=_DRAWN_SIZE)
            spectra = drawn.draw_person(person, moment)
            night[row, view] = moment.light == "night"
            for name, channels in zip(MODALITIES, CHANNELS, strict=True):
                picture = Image.fromarray(spectra[name]).resize((size[1], size[0]), Image.Resampling.BICUBIC)
                images[row, view, :, :, channels] = np.asarray(picture)[..., : channels.stop - channels.start]
    folder.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".part")
    with beside.open("wb") as out:
        np.savez(out, images=images, night=night, answers=np.array(told, np.int32))
    beside.rename(file)
    return file


def draw(blocks: Sequence[int], folder: pathlib.Path, seed: int, size: tuple[int, int], jobs: int = 1) -> People:
    """The people of these blocks, drawn where they are not there yet.

    Args:
      blocks: numbers from 0.
      folder: of the files.
      seed: one of `drawn.RESERVED_SEEDS`.
      size: (height, width) of the images.
      jobs: processes that draw.
    """
    if seed not in drawn.RESERVED_SEEDS:
        raise ValueError(f"trunks are trained on people of the reserved seeds, not of {seed}")
    work = functools.partial(draw_block, folder=folder, seed=seed, size=size)
    if jobs == 1:
        files = [work(block) for block in blocks]
    else:
        with concurrent.futures.ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
            files = list(pool.map(work, blocks))
    loaded = [np.load(file) for file in files]
    count = len(blocks) * BLOCK
    return People(
        images=np.concatenate([each["images"].reshape(-1, *size, 5) for each in loaded]),
        identity=np.repeat(np.arange(count, dtype=np.int32), VIEWS),
        night=np.concatenate([each["night"].reshape(-1) for each in loaded]),
        answers=np.concatenate([each["answers"] for each in loaded]),
    )
