"""From encoded image files to pixels: decoding, cutting side-by-side images into modalities, broken files.

`decode` is the one place where the bytes of an image file become pixels, for training, evaluation, commands, pictures
and captions alike. What becomes of images that are not 8-bit RGB:

* Grey images have their values in all three channels; palettes are looked up.
* Transparent parts are black, half-transparent ones darker: an absent pixel is zero here, as padding is.
* CMYK becomes RGB by Pillow's formula, without colour profiles.
* Photographs that say in their EXIF data how the camera was held are turned upright, as every viewer does.
  Parity: the original codes ignore the note; no image of the data sets has one.
* Of animations and files of several pages the first picture is taken.
* Values of more than 8 bits (16-bit and 32-bit integers, floats; thermal cameras write them) are scaled to 0...255:
  from the range that `Records.value_range` names, else each image from its 1st to its 99th percentile (over all
  channels), as a camera's automatic gain does. What lies outside is cut off, NaN is the lowest value. A line of the log
  says so.

A file that cannot be decoded raises `BrokenImage`, which names it; so does an image of more than `MOST_PIXELS`, before
memory is taken for it. What happens then is the policy ``broken``:

* ``error`` (or ``stop``): the run stops and says which file it was.
* ``skip``: training puts another image of the same identity in its place; an evaluation drops such samples before it
  begins (`drop_broken`), because its protocol must know.
* ``truncated``: a file that ends early is read as far as it goes, as the reference codes do; anything worse is an
  error.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any
from typing import Protocol as Interface

import numpy as np

from mmreid_jax.data import transforms
from mmreid_jax.data.records import Records, ValueRange, View
from mmreid_jax.errors import UserError, printable

BROKEN_POLICIES = ("error", "stop", "skip", "truncated")
MOST_PIXELS = 89_478_485
"""Of an image, a quarter of a gigabyte as RGB; the number from which Pillow warns of decompression bombs."""
PERCENTILES = (1.0, 99.0)
"""Of the values of an image of more than 8 bits: what becomes 0 and 255 where no range is named."""
# Pillow also opens formats that it hands to other programs (EPS to Ghostscript), or that hold no photographs.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "MPO", "AVIF")
# Colour spaces that libjpeg-turbo turns into the very RGB values that Pillow gives; of CMYK it does not.
_SAME_AS_PILLOW = ("YCbCr", "Gray", "RGB")
_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_ORIENTATION = 0x0112
_SCAN_CHUNK = 256
_READ_CHUNK = 32
_truncated_lock = threading.Lock()
_told_ranges: set[ValueRange] = set()
_log = logging.getLogger(__name__)


class BrokenImage(UserError):
    """An image file that cannot be decoded.

    Attributes:
      reason: what is wrong with it, without its name and without a remedy.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class Pixels(Interface):
    """Resized images of the rows of a records table, decoded now (`DecodedImages`) or before (`image_store`)."""

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
        images = np.zeros((len(rows), len(self.records.views), *self.size, 3), np.uint8)
        readable = np.ones(len(rows), bool)
        for i, (row, stored) in enumerate(zip(rows, fetched(self.records, rows), strict=True)):
            try:
                if isinstance(stored, BrokenImage):
                    raise stored
                images[i] = self.resized(int(row), stored)
            except BrokenImage as error:
                if self.broken != "skip":
                    advice = "--config.data.broken_images=skip, of a command --broken skip"
                    raise BrokenImage(f"{error}, or leave such images out ({advice})", error.reason) from error
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
    where = f"{printable(records.file[row])} of {printable(records.name)}"
    names = dict.fromkeys(view.image for view in records.views.values())
    missing = [name for name in names if name not in stored]
    if missing:
        raise UserError(f"{where} has no stored image {missing[0]!r}; it has {', '.join(stored) or 'none'}")
    decoded = {
        name: decode(stored[name], f"image {name!r} of {where}", truncated=truncated, value_range=records.value_range)
        for name in names
    }
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


def decode(encoded: bytes, where: str, *, truncated: bool = False, value_range: ValueRange = ()) -> np.ndarray:
    """Decodes an image file to RGB, uint8 [h, w, 3], with Pillow's values; the module says what becomes of what.

    JPEG goes through simplejpeg where that is installed and gives the same values in half the time; whatever it
    does not like is left to Pillow, which is more forgiving.

    Args:
      encoded: the file's bytes.
      where: names the file in messages.
      truncated: read a file that ends early as far as it goes; the rest is what Pillow fills in.
      value_range: see `Records.value_range`.

    Raises:
      BrokenImage: it cannot be decoded, or has more than `MOST_PIXELS`.
    """
    # Every parser of foreign bytes raises what it runs into, so nothing but a list of all errors is complete.
    try:
        image = _decode_jpeg(encoded)
        return decode_with_pillow(encoded, where, value_range) if image is None else image
    except Exception as error:
        if truncated and not isinstance(error, _TooLarge):
            return _decode_truncated(encoded, where, value_range)
        raise _broken(where, encoded, error) from error


def check_header(encoded: bytes, where: str) -> tuple[int, int]:
    """(height, width) that an image file claims, without decoding it; `BrokenImage` where it is none, or too large."""
    try:
        with _opened(encoded) as image:
            return image.height, image.width
    except Exception as error:
        raise _broken(where, encoded, error) from error


class _TooLarge(Exception):
    """An image of more than `MOST_PIXELS`."""


def _check_size(height: int, width: int) -> None:
    if height * width > MOST_PIXELS:
        raise _TooLarge(f"it claims {width} x {height} pixels, more than the {MOST_PIXELS:,} that are read")


def _broken(where: str, encoded: bytes, error: Exception, as_what: str = "") -> BrokenImage:
    from PIL import Image, UnidentifiedImageError

    if not encoded:
        reason = "the file is empty"
    elif isinstance(error, Image.DecompressionBombError):
        reason = f"it has more than the {MOST_PIXELS:,} pixels that are read"
    elif isinstance(error, UnidentifiedImageError):
        reason = "it is no image of a known format"
    else:
        reason = printable(str(error) or type(error).__name__)
    return BrokenImage(f"{where} cannot be read{as_what} ({reason}); get it again", reason)


def broken_rows(records: Records, *, threads: int = 1) -> dict[int, str]:
    """Row -> what is wrong, of the samples of which an image cannot be decoded; every image is decoded once."""
    return {row: error.reason for row, error in _scan(records, threads) if error is not None}


def drop_broken(records: Records, *, threads: int = 1) -> Records:
    """The table without the samples whose images cannot be decoded; says how many there were and which.

    Every image is decoded once, so this is for evaluations under the policy ``skip``; it comes before the protocol
    is made, whose queries and matches depend on what is there.
    """
    broken = list(broken_rows(records, threads=threads))
    report_broken(records, broken, "left out")
    if len(broken) == len(records):
        raise UserError(f"none of the {len(records)} samples of {records.name} can be read; prepare the data set again")
    return records.select(np.setdiff1d(np.arange(len(records)), broken)) if broken else records


def report_broken(records: Records, rows: Sequence[int], fate: str) -> None:
    """Logs one warning: how many of the images cannot be read, their names (at most ten) and what happens to them."""
    if len(rows):
        names = ", ".join(printable(records.file[row]) for row in rows[:10]) + (", ..." if len(rows) > 10 else "")
        _log.warning(
            "%d of %d samples of %s cannot be read and are %s: %s", len(rows), len(records), records.name, fate, names
        )


def _scan(records: Records, threads: int) -> Iterator[tuple[int, BrokenImage | None]]:
    """Decodes all samples; yields (row, None or what is wrong) in order."""
    from tqdm import tqdm

    def check(row: int, stored: Mapping[str, bytes] | BrokenImage) -> tuple[int, BrokenImage | None]:
        if isinstance(stored, BrokenImage):
            return row, stored
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
            yield from pool.map(check, rows, fetched(records, rows))
            progress.update(len(rows))


def fetched(records: Records, rows: Sequence[int] | np.ndarray) -> list[dict[str, bytes] | BrokenImage]:
    """The encoded images of `rows`; of a sample whose file cannot even be fetched, why."""
    indices = [int(row) for row in rows]
    try:
        return list(records.encoded(indices))
    except BrokenImage as error:
        if len(indices) == 1:
            return [error]
        return [each for index in indices for each in fetched(records, [index])]


@functools.cache
def _simplejpeg() -> ModuleType | None:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


@functools.cache
def _pillow() -> tuple[ModuleType, tuple[str, ...]]:
    """Pillow, and those of `_FORMATS` that it knows here."""
    from PIL import Image

    # The size is checked here; a warning of the very same limit would stand before the error.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    # What is odd about a file that can be read all the same, such as damaged metadata.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    Image.init()
    return Image, tuple(name for name in _FORMATS if name in Image.OPEN)


def _opened(encoded: bytes) -> Any:
    """Pillow's image of a file, of which nothing but the header is read yet."""
    pillow, formats = _pillow()
    image = pillow.open(io.BytesIO(encoded), formats=formats)
    _check_size(image.height, image.width)
    return image


def _decode_jpeg(encoded: bytes) -> np.ndarray | None:
    """RGB of a JPEG file by libjpeg-turbo; None where it is none, or one that is better left to Pillow."""
    fast = _simplejpeg()
    if fast is None or encoded[:2] != b"\xff\xd8":
        return None
    try:
        height, width, colours, _ = fast.decode_jpeg_header(encoded)
        _check_size(height, width)
        if colours not in _SAME_AS_PILLOW:
            return None
        image = fast.decode_jpeg(encoded, "RGB", fastdct=False, fastupsample=False)
    except ValueError:
        return None
    # Metadata come first in a file; to look for them costs nothing beside decoding.
    if b"Exif\0\0" in encoded or b"tiff:Orientation" in encoded:
        with _opened(encoded) as opened:
            return _upright(image, _orientation(opened))
    return image


def decode_with_pillow(encoded: bytes, where: str = "an image", value_range: ValueRange = ()) -> np.ndarray:
    """Any image file that Pillow knows, as `decode` gives it; raises what Pillow raises."""
    with _opened(encoded) as image:
        deep = _deep_colours(image, encoded)
        image.load()
        alpha = None
        if deep is not None or image.mode.split(";")[0] in ("I", "F"):
            values = _values(image) if deep is None else deep
            _tell_of_depth(where, value_range)
            rgb = np.broadcast_to(scaled(values[..., :3], value_range), (*values.shape[:2], 3))
            if values.shape[-1] == 4:
                alpha = (values[..., 3:] // 256).astype(np.uint8)
        elif image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            rgba = np.asarray(image.convert("RGBA"))
            rgb, alpha = rgba[..., :3], rgba[..., 3:]
        else:
            rgb = np.asarray(image.convert("RGB"))
        if alpha is not None:
            # Rounded product of two numbers of 8 bits.
            rgb = ((rgb.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)
        return _upright(rgb, _orientation(image))


def scaled(values: np.ndarray, value_range: ValueRange = ()) -> np.ndarray:
    """Values of more than 8 bits as uint8 of the same shape.

    Args:
      values: [...], integers or floats.
      value_range: what becomes 0 and 255; empty: the `PERCENTILES` of these values, or their extremes where nearly all
        are equal.

    Raises:
      ValueError: no value is finite.
    """
    values = values.astype(np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("none of its values is finite")
    low, high = value_range or np.percentile(finite, PERCENTILES)
    if low == high:
        low, high = finite.min(), finite.max()
    share = (np.nan_to_num(values, nan=low) - low) / (high - low if high > low else 1.0)
    return np.round(255 * np.clip(share, 0, 1)).astype(np.uint8)


def _values(image: Any) -> np.ndarray:
    """[h, w, 1] of an image of one channel of more than 8 bits."""
    values = np.asarray(image)[..., None]
    sample_format = image.tag_v2.get(339, (1,)) if image.format == "TIFF" else (2,)
    # Pillow has 32-bit integers with a sign only.
    return values.view(np.uint32) if values.dtype == np.int32 and sample_format[0] == 1 else values


def _deep_colours(image: Any, encoded: bytes) -> np.ndarray | None:
    """uint16 [h, w, 3 or 4] of a PNG or TIFF file of 16 bits in each of several channels; None for other files.

    Pillow keeps the upper byte of such values. Told that the bytes lie the other way round, it gives the lower one.

    Args:
      image: of the file, opened and not loaded.
      encoded: the file.
    """
    tiles, grey = [], False
    for codec, extents, offset, args in image.tile if image.format in ("PNG", "TIFF") else []:
        mode, *rest = (args,) if isinstance(args, str) else args
        kind, _, order = str(mode).partition(";16")
        if order not in _SWAPPED or kind not in ("RGB", "RGBA", "RGBX", "LA"):
            return None
        grey = kind == "LA"
        # Grey with opacity has no other order in Pillow; its four bytes are read as they lie.
        swapped = "RGBA" if grey else f"{kind};16{_SWAPPED[order]}"
        tiles.append((codec, extents, offset, swapped if isinstance(args, str) else (swapped, *rest)))
    if not tiles:
        return None
    with _opened(encoded) as lower:
        # Pillow's own kind of tuple, where it has one.
        lower.tile = [
            type(old)(*new) if hasattr(old, "_fields") else new for old, new in zip(lower.tile, tiles, strict=True)
        ]
        low = np.asarray(lower).astype(np.uint16)
    if grey:
        value, opacity = 256 * low[..., 0] + low[..., 1], 256 * low[..., 2] + low[..., 3]
        return np.stack([value, value, value, opacity], axis=-1)
    return 256 * np.asarray(image).astype(np.uint16) + low


def _tell_of_depth(where: str, value_range: ValueRange) -> None:
    """Says once how values of more than 8 bits are scaled, and at which image that was noticed."""
    if value_range in _told_ranges:
        return
    _told_ranges.add(value_range)
    low, high = value_range or ("the 1st", "the 99th percentile of each")
    remedy = (
        "" if value_range else "; value_range=(LOW, HIGH) (--value_range, config.data.value_range) sets one for all"
    )
    _log.warning(
        "%s has values of more than 8 bits: in all such images %s to %s become 0 to 255%s", where, low, high, remedy
    )


def _orientation(image: Any) -> int:
    """How the camera was held, 1 to 8 as in EXIF; 1 where the image does not say, or not readably."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # metadata that are damaged do not make the picture unreadable
        return 1
    return orientation if orientation in range(1, 9) else 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """The image [h, w, 3] as it was seen, from how it was stored: transposed, turned upside down, mirrored."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


@contextlib.contextmanager
def truncated_files(accepted: bool) -> Iterator[None]:
    """Lets Pillow accept files that end early, or refuse them, whatever the program around has told it."""
    from PIL import ImageFile

    # The switch is global in Pillow: no thread beside minds for long, but two must not move it to and fro.
    with _truncated_lock:
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, accepted
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def _decode_truncated(encoded: bytes, where: str, value_range: ValueRange) -> np.ndarray:
    try:
        with truncated_files(True):
            return decode_with_pillow(encoded, where, value_range)
    except Exception as error:  # see `decode`
        raise _broken(where, encoded, error, " even as a truncated file") from error
