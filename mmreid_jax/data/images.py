"""From encoded image files to pixels: decoding, cutting side-by-side images into modalities, broken files.

A file that cannot be decoded raises `BrokenImage`, which names it. What happens then is the policy ``broken``:

* ``error``: the run stops and says which file it was.
* ``skip``: training puts another image of the same identity in its place; an evaluation drops such samples before it
  begins (`drop_broken`), because its protocol must know.
* ``truncated``: a file that ends early is read as far as it goes, as the reference codes do; anything worse is an
  error.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import io
import logging
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Protocol

import numpy as np

from mmreid_jax.data import transforms
from mmreid_jax.data.records import Records, View
from mmreid_jax.errors import UserError

BROKEN_POLICIES = ("error", "skip", "truncated")
# Colour spaces that libjpeg-turbo turns into the very RGB values that Pillow gives; of CMYK it does not.
_SAME_AS_PILLOW = ("YCbCr", "Gray", "RGB")
# What Pillow raises on bytes that are no image, or a damaged one, depending on the format.
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, IndexError, TypeError, EOFError, struct.error)
_SCAN_CHUNK = 256
_READ_CHUNK = 32
_truncated_lock = threading.Lock()
_log = logging.getLogger(__name__)


class BrokenImage(UserError):
    """An image file that cannot be decoded."""


class Pixels(Protocol):
    """Resized images of the rows of a records table, decoded now (`DecodedImages`) or before (`store.Store`)."""

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The images uint8 [n, M, H, W, 3] of `rows` [n], and bool [n]: False where a file is broken (zeros)."""
        ...

    def whole(self, threads: int) -> tuple[np.ndarray, np.ndarray]:
        """The same of all rows; `threads` decode."""
        ...


@dataclasses.dataclass(frozen=True)
class Held:
    """What the host knows of the images of a table that lie on the devices: there is no pixel here.

    Attributes:
      position: int32 [N, M], where the images of row i are in the devices' array.
      readable: bool [N], False where a file is broken.
    """

    position: np.ndarray
    readable: np.ndarray

    def select(self, rows: np.ndarray) -> Held:
        """Of a table that `Records.select` made of the rows."""
        return Held(self.position[rows], self.readable[rows])


@dataclasses.dataclass(frozen=True)
class DecodedImages:
    """Images decoded and resized whenever they are read.

    Attributes:
      records: the table.
      size: (H, W).
      interpolation: see `transforms.resize`.
      broken: policy for files that cannot be decoded, one of BROKEN_POLICIES.
    """

    records: Records
    size: tuple[int, int]
    interpolation: str
    broken: str = "error"

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Pixels.read`; raises `BrokenImage` where the policy is not ``skip``."""
        encoded = self.records.encoded([int(row) for row in rows])
        images = np.zeros((len(rows), len(self.records.views), *self.size, 3), np.uint8)
        readable = np.ones(len(rows), bool)
        for i, (row, stored) in enumerate(zip(rows, encoded, strict=True)):
            try:
                images[i] = self.resized(int(row), stored)
            except BrokenImage:
                if self.broken != "skip":
                    raise
                readable[i] = False
        return images, readable

    def whole(self, threads: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Pixels.whole`."""
        count = len(self.records)
        images = np.empty((count, len(self.records.views), *self.size, 3), np.uint8)
        readable = np.empty(count, bool)
        chunks = [slice(start, min(start + _READ_CHUNK, count)) for start in range(0, count, _READ_CHUNK)]
        with concurrent.futures.ThreadPoolExecutor(max(threads, 1)) as pool:
            read = pool.map(lambda chunk: self.read(np.arange(chunk.start, chunk.stop)), chunks)
            for chunk, (pixels, ok) in zip(chunks, read, strict=True):
                images[chunk], readable[chunk] = pixels, ok
        return images, readable

    def resized(self, row: int, stored: Mapping[str, bytes]) -> np.ndarray:
        """uint8 [M, H, W, 3] of one row from its encoded images."""
        images = decode_sample(self.records, row, stored, truncated=self.broken == "truncated")
        return np.stack([transforms.resize(image, self.size, self.interpolation) for image in images.values()])


def check_policy(broken: str) -> str:
    """`broken`, if it is one of BROKEN_POLICIES; else `UserError`."""
    if broken not in BROKEN_POLICIES:
        raise UserError(f"unknown policy {broken!r} for broken images; choose one of {', '.join(BROKEN_POLICIES)}")
    return broken


def decode_sample(
    records: Records, row: int, stored: Mapping[str, bytes], *, truncated: bool = False
) -> dict[str, np.ndarray]:
    """All modalities of one sample: uint8 [h, w, 3] each, in their own sizes, in the order of `records.views`.

    Args:
      records: the table.
      row: of the sample, for messages.
      stored: stored image name -> encoded bytes, as `Records.encoded` gives them; each is decoded once.
      truncated: accept files that end early.

    Raises:
      BrokenImage: a file cannot be decoded.
      UserError: a stored image is missing, or a side-by-side image does not have the width its columns ask for.
    """
    where = f"{records.file[row]} of {records.name}"
    names = dict.fromkeys(view.image for view in records.views.values())
    missing = [name for name in names if name not in stored]
    if missing:
        raise UserError(f"{where} has no stored image {missing[0]!r}; it has {', '.join(stored) or 'none'}")
    decoded = {name: decode(stored[name], f"image {name!r} of {where}", truncated=truncated) for name in names}
    return cut(decoded, records.views, where)


def cut(images: Mapping[str, np.ndarray], views: Mapping[str, View], where: str) -> dict[str, np.ndarray]:
    """Cuts stored images [h, w, 3] into modalities; side-by-side images must be as wide as their last column.

    A width that differs means another data set or another layout: cutting it anyway would mix the modalities.
    """
    for name, image in images.items():
        stops = [view.columns[1] for view in views.values() if view.image == name and view.columns is not None]
        if stops and image.shape[1] != max(stops):
            raise UserError(
                f"image {name!r} of {where} is {image.shape[1]} x {image.shape[0]} pixels (width x height), but its "
                f"modalities lie side by side in a width of {max(stops)}; check the data set and its configuration"
            )
    return {
        modality: images[view.image] if view.columns is None else images[view.image][:, slice(*view.columns)]
        for modality, view in views.items()
    }


def decode(encoded: bytes, where: str, *, truncated: bool = False) -> np.ndarray:
    """Decodes an image file of any format that Pillow knows to RGB, uint8 [h, w, 3], with Pillow's values.

    JPEG goes through simplejpeg where that is installed and gives the same values in half the time; whatever it
    does not like is left to Pillow, which is more forgiving.

    Args:
      encoded: the file's bytes.
      where: names the file in messages.
      truncated: read a file that ends early as far as it goes; the rest is what Pillow fills in.

    Raises:
      BrokenImage: it cannot be decoded.
    """
    fast = _simplejpeg()
    if fast is not None and encoded[:2] == b"\xff\xd8":
        try:
            if fast.decode_jpeg_header(encoded)[2] in _SAME_AS_PILLOW:
                return fast.decode_jpeg(encoded, "RGB", fastdct=False, fastupsample=False)
        except ValueError:
            pass
    try:
        return decode_with_pillow(encoded)
    except _PILLOW_ERRORS as error:
        if truncated:
            return _decode_truncated(encoded, where)
        raise BrokenImage(
            f"{where} cannot be read ({error}); fetch it again, or set broken to 'skip' or 'truncated'"
        ) from error


def drop_broken(records: Records, *, threads: int = 1) -> Records:
    """The table without the samples whose images cannot be decoded; says how many there were and which.

    Every image is decoded once, so this is for evaluations under the policy ``skip``; it comes before the protocol
    is made, whose queries and matches depend on what is there.
    """
    broken = [row for row, error in _scan(records, threads) if error is not None]
    report_broken(records, broken, "left out")
    if len(broken) == len(records):
        raise UserError(f"none of the {len(records)} samples of {records.name} can be read; prepare the data set again")
    return records.select(np.setdiff1d(np.arange(len(records)), broken)) if broken else records


def report_broken(records: Records, rows: Sequence[int], fate: str) -> None:
    """Logs one warning: how many of the images cannot be read, their names (at most ten) and what happens to them."""
    if len(rows):
        names = ", ".join(str(records.file[row]) for row in rows[:10]) + (", ..." if len(rows) > 10 else "")
        _log.warning(
            "%d of %d samples of %s cannot be read and are %s: %s", len(rows), len(records), records.name, fate, names
        )


def _scan(records: Records, threads: int) -> Iterator[tuple[int, BrokenImage | None]]:
    """Decodes all samples; yields (row, None or what is wrong) in order."""
    from tqdm import tqdm

    def check(row: int, stored: Mapping[str, bytes]) -> tuple[int, BrokenImage | None]:
        try:
            decode_sample(records, row, stored)
        except BrokenImage as error:
            return row, error
        return row, None

    with (
        concurrent.futures.ThreadPoolExecutor(max(threads, 1)) as pool,
        tqdm(total=len(records), desc=f"checking {records.name}", unit="samples", disable=None) as progress,
    ):
        for start in range(0, len(records), _SCAN_CHUNK):
            rows = range(start, min(start + _SCAN_CHUNK, len(records)))
            yield from pool.map(check, rows, records.encoded(rows))
            progress.update(len(rows))


@functools.cache
def _simplejpeg() -> ModuleType | None:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def decode_with_pillow(encoded: bytes) -> np.ndarray:
    """Any image file that Pillow knows, as RGB, uint8 [h, w, 3]; raises what Pillow raises."""
    from PIL import Image

    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))


def _decode_truncated(encoded: bytes, where: str) -> np.ndarray:
    from PIL import ImageFile

    # The switch is global in Pillow: under this policy no other thread minds, but two must not move it to and fro.
    with _truncated_lock:
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
        try:
            return decode_with_pillow(encoded)
        except _PILLOW_ERRORS as error:
            raise BrokenImage(f"{where} cannot be read even as a truncated file ({error}); fetch it again") from error
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before
