"""Crops of people out of frames of video: boxes of any tracker (MOT's text) or detector (COCO's JSON) into folders."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmreid_jax.data import images, listing
from mmreid_jax.datasets.own import naming
from mmreid_jax.datasets.own.faults import Faults, FaultyData
from mmreid_jax.errors import UserError, printable
from mmreid_jax.paths import read_json, read_text, reason_of

if TYPE_CHECKING:
    from PIL.Image import Image

PATTERN = "{identity}/c{camera}_f{index}"
"""Of the files that are made, as ``prepare --pattern`` wants it."""
IDENTITY_KEYS = ("identity", "track_id", "person_id", "instance_id")
"""Of a COCO annotation, or of its ``attributes``: the first that is there names the identity."""
_FIELDS = 6
# Of numbers of frames, identities and pixels; NaN is not below it either.
_LARGEST = 2.0**53


@dataclasses.dataclass(frozen=True)
class Box:
    """A person in a frame.

    Attributes:
      identity: who it is, as written.
      frame: file of the frame.
      number: of the frame, for the name of the crop.
      corners: left, top, right, bottom in pixels from the frame's left top corner, right and bottom excluded.
    """

    identity: str
    frame: pathlib.Path
    number: str
    corners: tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class CropChoice:
    """Which boxes become crops, and where these go.

    Attributes:
      camera: name of the camera, a part of the file names.
      modality: a folder around those of the identities, such as ``thermal``; "" for none.
      prefix: put before identities, because the tracks of two videos are different people under the same numbers.
      every: of the frames of an identity one in so many is taken.
      least_height: of a box, in pixels, after what lies outside of the frame is cut off.
    """

    camera: str = "1"
    modality: str = ""
    prefix: str = ""
    every: int = 1
    least_height: int = 32

    def __post_init__(self) -> None:
        if self.every < 1 or self.least_height < 1:
            raise UserError("--every and --least_height must be at least 1")
        if not re.fullmatch(r"[A-Za-z0-9-]+", self.camera):
            raise UserError(f"--camera is {printable(self.camera)!r}; take letters, digits and -")
        if self.modality and not naming.modality_of(self.modality):
            raise UserError(f"--modality is {printable(self.modality)!r}; take rgb, nir, tir or another word for one")


@dataclasses.dataclass(frozen=True)
class Cut:
    """What was made.

    Attributes:
      crops: number of files.
      identities: number of people.
      small: boxes that were too low, or outside of their frames.
    """

    crops: int
    identities: int
    small: int


def read_mot(path: pathlib.Path, frames: pathlib.Path) -> list[Box]:
    """The boxes of a text of MOTChallenge: ``frame, id, left, top, width, height[, confidence, ...]`` in each line.

    Frames and pixels count from 1. A confidence of 0 marks what is not to be considered; such lines are left out, and
    those without an identity (-1).

    Args:
      path: of the text.
      frames: folder of the frames, the number of each at the end of its name (``000001.jpg``).

    Raises:
      FaultyData: lines of another form, frames that are not there; all of them are named.
      UserError: the text or the folder cannot be read.
    """
    faults, boxes = Faults(), []
    numbered = _numbered(frames, faults)
    for line, text in enumerate(_text(path).splitlines(), start=1):
        if not text.replace(",", " ").strip():
            continue
        values = text.split(",")
        try:
            frame, identity, left, top, width, height = (float(value) for value in values[:_FIELDS])
            confidence = float(values[_FIELDS]) if len(values) > _FIELDS else 1.0
            if not all(abs(value) < _LARGEST for value in (frame, identity, left, top, width, height, confidence)):
                raise ValueError
        except ValueError:
            faults.add("lines are not frame, id, left, top, width, height", f"line {line}")
            continue
        if not confidence or identity < 0:
            continue
        place = numbered.get(int(frame))
        if place is None:
            faults.add(f"lines name frames that are not in {frames}", f"{int(frame)} (line {line})")
            continue
        corners = (left - 1, top - 1, left - 1 + width, top - 1 + height)
        boxes.append(Box(str(int(identity)), place, f"{int(frame):06d}", corners))
    return _checked(path, boxes, faults)


def read_coco(path: pathlib.Path, frames: pathlib.Path) -> list[Box]:
    """The boxes of a file of COCO: ``images`` (id, file_name), ``annotations`` (image_id, bbox and an identity).

    Args:
      path: of the file.
      frames: folder below which the images lie under their ``file_name``.

    Raises:
      FaultyData: annotations without image, box or identity (`IDENTITY_KEYS`), images that are not there.
      UserError: the file cannot be read.
    """
    faults, boxes = Faults(), []
    try:
        content = read_json(path)
        named = {each["id"]: str(each["file_name"]) for each in content["images"]}
        annotations = list(content["annotations"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{printable(path)} is no COCO file of images and annotations ({error})") from None
    for position, each in enumerate(annotations):
        where = f"annotation {each.get('id', position) if isinstance(each, Mapping) else position}"
        try:
            file = named[each["image_id"]]
            left, top, width, height = (float(value) for value in each["bbox"])
            if not all(abs(value) < _LARGEST for value in (left, top, width, height)):
                raise ValueError
        except (ValueError, LookupError, TypeError, OverflowError):
            faults.add("annotations have no image or no box of four numbers", where)
            continue
        identity = _identity_of(each)
        if not identity:
            faults.add(f"annotations have no identity ({', '.join(IDENTITY_KEYS)})", where)
            continue
        place = frames / file
        if not place.is_file():
            faults.add(f"images are not in {frames}", file)
            continue
        number = re.sub(r"[^A-Za-z0-9]+", "-", str(pathlib.PurePosixPath(file).with_suffix(""))).strip("-")
        boxes.append(Box(identity, place, number, (left, top, left + width, top + height)))
    return _checked(path, boxes, faults)


def cut(boxes: Sequence[Box], out: pathlib.Path, choice: CropChoice) -> Cut:
    """Writes the crops as ``OUT[/MODALITY]/IDENTITY/cCAMERA_fFRAME.png``, all of them or none.

    Args:
      boxes: of `read_mot` or `read_coco`.
      out: the folder; crops of other cameras may be there.
      choice: of the boxes.

    Raises:
      FaultyData: frames that cannot be decoded, crops that are there already.
      UserError: the folder cannot be written to.
    """
    home = out / choice.modality if choice.modality else out
    faults, small = Faults(), 0
    made: dict[pathlib.PurePath, pathlib.Path] = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".crops.", dir=out) as unfinished:
            for frame, of_frame in _chosen(boxes, choice.every).items():
                try:
                    crops = _crops(frame, of_frame, choice.least_height)
                except images.BrokenImage as error:
                    faults.add("frames cannot be read", f"{frame.name} ({error.reason})")
                    continue
                small += len(of_frame) - len(crops)
                for box, crop in crops:
                    place, stored = _place(box, choice), pathlib.Path(unfinished) / f"{len(made)}.png"
                    if place in made:
                        faults.add("identities have two boxes in one frame", f"{box.identity} in {frame.name}")
                        continue
                    crop.save(stored)
                    made[place] = stored
            there = [str(place) for place in made if (home / place).exists()]
            faults.add("crops are there already (name another --out or --camera)", there)
            if faults:
                raise FaultyData(printable(out), faults)
            for place, stored in made.items():
                (home / place).parent.mkdir(parents=True, exist_ok=True)
                stored.rename(home / place)
    except OSError as error:
        raise UserError(f"{printable(out)} cannot be written to ({reason_of(error)}); name another --out") from None
    return Cut(len(made), len({place.parent for place in made}), small)


def _crops(frame: pathlib.Path, boxes: Sequence[Box], least_height: int) -> list[tuple[Box, Image]]:
    """The boxes of a frame that are high enough, each with its pixels in the frame's own depth.

    Raises:
      BrokenImage: the frame cannot be decoded.
    """
    from PIL import Image

    encoded = listing.read_file(frame)
    images.check_header(encoded, frame.name)
    try:
        with Image.open(io.BytesIO(encoded)) as whole:
            whole.load()
            # PNG has no such colours; all others are kept, 16 bits of thermal cameras above all.
            pixels = whole.convert("RGB") if whole.mode in ("CMYK", "YCbCr", "LAB", "HSV") else whole.copy()
    except (OSError, ValueError, SyntaxError) as error:
        raise images.BrokenImage(f"{frame.name} cannot be decoded ({error})", str(error)) from None
    inside = [(box, _inside(box.corners, pixels.size)) for box in boxes]
    return [
        (box, pixels.crop((left, top, right, bottom)))
        for box, (left, top, right, bottom) in inside
        if bottom - top >= least_height and right > left
    ]


def _place(box: Box, choice: CropChoice) -> pathlib.PurePath:
    """Name of a crop below the folder of its modality."""
    identity = re.sub(r"[^\w-]+", "-", f"{choice.prefix}{box.identity}")
    return pathlib.PurePath(identity, f"c{choice.camera}_f{box.number}.png")


def _chosen(boxes: Sequence[Box], every: int) -> Mapping[pathlib.Path, list[Box]]:
    """Frame -> boxes to cut from it: of each identity the first, and every so many-th after it."""
    seen: dict[str, int] = defaultdict(int)
    by_frame: dict[pathlib.Path, list[Box]] = defaultdict(list)
    for box in sorted(boxes, key=lambda box: box.number):
        if seen[box.identity] % every == 0:
            by_frame[box.frame].append(box)
        seen[box.identity] += 1
    return by_frame


def _inside(corners: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels of a box that lie in an image of `size` (width, height)."""
    width, height = size
    left, top, right, bottom = (round(value) for value in corners)
    return max(left, 0), max(top, 0), min(right, width), min(bottom, height)


def _numbered(frames: pathlib.Path, faults: Faults) -> dict[int, pathlib.Path]:
    """Number at the end of its name -> frame."""
    if not frames.is_dir():
        raise UserError(f"there is no folder {printable(frames)}; name that of the frames with --frames")
    found: dict[int, pathlib.Path] = {}
    for name in listing.list_images(frames).files:
        match = re.search(r"(\d+)$", pathlib.PurePath(name).stem, re.ASCII)
        if match:
            if int(match[1]) in found:
                faults.add("frames have the number of another", name)
            found[int(match[1])] = frames / name
    return found


def _identity_of(annotation: Mapping[str, Any]) -> str:
    """The identity that an annotation or its attributes name; "" for none."""
    attributes = annotation.get("attributes")
    for held in (annotation, attributes if isinstance(attributes, Mapping) else {}):
        for key in IDENTITY_KEYS:
            if held.get(key) is not None:
                return str(held[key])
    return ""


def _text(path: pathlib.Path) -> str:
    try:
        return read_text(path)
    except UnicodeDecodeError:
        raise UserError(f"{printable(path)} is no text; name one of MOTChallenge's form") from None
    except OSError as error:
        raise UserError(f"{printable(path)} cannot be read ({reason_of(error)})") from None


def _checked(path: pathlib.Path, boxes: list[Box], faults: Faults) -> list[Box]:
    if faults:
        raise FaultyData(printable(path), faults)
    if not boxes:
        raise UserError(f"{printable(path)} holds no box with an identity; there is nothing to cut out")
    return boxes
