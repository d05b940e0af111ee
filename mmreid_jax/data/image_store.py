"""A store of decoded and resized images on disk, so that files are decoded once and not once an epoch.

Resizing comes before anything random, so what is stored is all that is deterministic in the pipeline, and a batch from
the store equals one decoded on the fly bit for bit. A store is one uint8 array [N, M, H, W, 3] in a folder of its own,
memory-mapped, so threads and worker processes share one copy in the page cache.

The folder's name holds what went into it: table name, size, interpolation, and a digest of files, rows, views, policy
and the bytes of every image. Other data, were it one image of thousands, give another folder; nothing is ever
overwritten. Deleting a folder is always safe. The bytes are read through when a table is first seen; while the files
behind it have the same names, sizes, times and places (`Stamped`), what was found then is taken from a small file.

Every row has a checksum, which is compared whenever the row is read.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import logging
import os
import re
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Protocol as Interface
from typing import runtime_checkable

import numpy as np

from mmreid_jax import locks
from mmreid_jax.data.images import BrokenImage, DecodedImages, Pixels, fetched, report_broken
from mmreid_jax.data.records import Records
from mmreid_jax.errors import UserError
from mmreid_jax.paths import path_of

# Of the store and of what `images.decode` makes of a file.
_FORMAT = 2
# Which images are readable, and the checksum of each row; an archive, which has checksums of its own.
_IMAGES, _TABLE = "images.npy", "table.npz"
_CHUNK = 128
_log = logging.getLogger(__name__)


@runtime_checkable
class Stamped(Interface):
    """A source of images that can tell without reading them whether they may have changed."""

    def stamp(self) -> str:
        """Another text as soon as an image may be another."""
        ...


class ImageStore:
    """The images of a finished store; picklable, every process maps the file for itself.

    Attributes:
      folder: of the store.
    """

    def __init__(self, folder: Path) -> None:
        """Opens the store in `folder`; `UserError` if it is damaged."""
        self.folder = folder
        try:
            self._images = np.asarray(np.load(folder / _IMAGES, mmap_mode="r"))
            with np.load(folder / _TABLE) as table:
                self._readable, self._checksums = table["readable"], table["checksums"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise self._damaged(str(error)) from error
        if self._images.dtype != np.uint8 or self._images.ndim != 5 or len(self._images) != len(self._readable):
            raise self._damaged(f"it holds {self._images.dtype} {list(self._images.shape)}")

    def __reduce__(self) -> tuple[type[ImageStore], tuple[Path]]:
        return ImageStore, (self.folder,)

    @property
    def broken_rows(self) -> list[int]:
        """Rows whose files could not be decoded."""
        return np.flatnonzero(~self._readable).tolist()

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `images.Pixels.read`; raises `UserError` where the disk gives other bytes than were written."""
        images = self._images[rows]
        self._check(images, rows)
        return images, self._readable[rows]

    def whole(self, threads: int) -> tuple[np.ndarray, np.ndarray]:
        """See `images.Pixels.whole`; the images are those of the file, and checked like those of `read`."""
        chunks = [
            np.arange(start, min(start + _CHUNK, len(self._images))) for start in range(0, len(self._images), _CHUNK)
        ]
        with concurrent.futures.ThreadPoolExecutor(max(threads, 1)) as pool:
            for _ in pool.map(lambda rows: self._check(self._images[rows[0] : rows[-1] + 1], rows), chunks):
                pass
        return self._images, self._readable

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all images: (N, M, H, W, 3)."""
        return self._images.shape

    def _check(self, images: np.ndarray, rows: np.ndarray) -> None:
        for image, row in zip(images, rows, strict=True):
            if zlib.crc32(image) != self._checksums[row]:
                raise self._damaged(f"the pixels of row {row} are not those that were written")

    def _damaged(self, reason: str) -> UserError:
        return UserError(
            f"the image store {self.folder} is damaged ({reason}); delete that folder, it is made again from the images"
        )


def open_pixels(decoded: DecodedImages, *, folder: str = "", limit_gib: float = 0.0, threads: int = 1) -> Pixels:
    """The store of `decoded` where one may be used, built now if there is none yet; else `decoded` itself.

    Args:
      decoded: table, size, interpolation and policy.
      folder: where stores live; empty for none.
      limit_gib: a store larger than this (GiB) is not made.
      threads: decoding while building.

    Returns:
      A `ImageStore`, or `decoded` where the store is switched off, too large, or cannot be written: no space or no
      permission is one warning, not the end of the run.
    """
    size = len(decoded.records) * _row_bytes(decoded)
    if not folder or size > limit_gib * 2**30:
        return decoded
    cache = path_of(folder)
    place = cache / _name(decoded, _content(decoded.records, cache, threads))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        # Of several processes that want the same store, one builds and the others wait.
        with locks.exclusive(place.with_suffix(".lock")):
            if not place.exists():
                _build(decoded, place, size, threads)
    except OSError as error:
        _log.warning("no image store at %s (%s): images are decoded whenever they are read", place, error)
        return decoded
    store = ImageStore(place)
    if store.shape != _shape(decoded):
        raise store._damaged(f"it holds {list(store.shape)}, not {list(_shape(decoded))}")
    report_broken(decoded.records, store.broken_rows, "replaced")
    return store


def _shape(decoded: DecodedImages) -> tuple[int, ...]:
    return len(decoded.records), len(decoded.records.views), *decoded.size, 3


def _row_bytes(decoded: DecodedImages) -> int:
    return len(decoded.records.views) * decoded.size[0] * decoded.size[1] * 3


def _name(decoded: DecodedImages, content: str) -> str:
    """Name of the store's folder: what people want to know, then a digest of the rest; `content`: that of the bytes."""
    records = decoded.records
    digest = hashlib.sha256(content.encode())
    views = [(name, view.image, view.columns) for name, view in records.views.items()]
    digest.update(repr((_FORMAT, records.name, views, decoded.broken, records.value_range)).encode())
    digest.update(np.ascontiguousarray(records.rows, np.int64).tobytes())
    digest.update("\n".join(map(str, records.file)).encode(errors="surrogatepass"))
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", records.name)[:100]
    return f"{readable}-{decoded.size[0]}x{decoded.size[1]}-{decoded.interpolation}-{digest.hexdigest()[:16]}"


def _content(records: Records, cache: Path, threads: int) -> str:
    """Digest of the bytes of all images of a table, from the cache where the source says that nothing has changed."""
    known = None
    if isinstance(records.source, Stamped):
        rows = np.ascontiguousarray(records.rows, np.int64).tobytes()
        known = cache / f"content-{hashlib.sha256(records.source.stamp().encode() + rows).hexdigest()[:32]}"
        with contextlib.suppress(OSError, ValueError):
            if re.fullmatch(r"[0-9a-f]{64}", text := known.read_text(encoding="ascii")):
                return text
    digest = _digest(records, threads)
    if known is not None:
        # Only a convenience: without it the images are read through the next time as well.
        with contextlib.suppress(OSError):
            cache.mkdir(parents=True, exist_ok=True)
            unfinished = known.with_name(f"{known.name}.{os.getpid()}")
            unfinished.write_text(digest, encoding="ascii")
            unfinished.replace(known)
    return digest


def _digest(records: Records, threads: int) -> str:
    """Digest of the bytes of all images of a table; of a file that cannot be fetched, of the reason."""
    from tqdm import tqdm

    def of(rows: np.ndarray) -> bytes:
        digest = hashlib.sha256()
        for stored in fetched(records, rows):
            parts = {"": stored.reason.encode()} if isinstance(stored, BrokenImage) else stored
            for name, encoded in sorted(parts.items()):
                digest.update(f"{name}:{len(encoded)}:".encode())
                digest.update(encoded)
        return digest.digest()

    chunks = np.array_split(np.arange(len(records)), max(1, -(-len(records) // _CHUNK)))
    digest = hashlib.sha256()
    with (
        concurrent.futures.ThreadPoolExecutor(max(threads, 1)) as pool,
        tqdm(total=len(records), desc=f"looking at {records.name}", unit="samples", disable=None) as progress,
    ):
        for rows, part in zip(chunks, pool.map(of, chunks), strict=True):
            digest.update(part)
            progress.update(len(rows))
    return digest.hexdigest()


def _build(decoded: DecodedImages, place: Path, size: int, threads: int) -> None:
    """Writes the store under another name and renames it when it is complete.

    Written as a file and not through a memory map, where a full disk would kill the process instead of raising.
    """
    from tqdm import tqdm

    records = decoded.records
    unfinished = place.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    free = shutil.disk_usage(place.parent).free
    if size > free:
        raise OSError(f"{size / 2**30:.1f} GiB are needed and {free / 2**30:.1f} GiB free")
    unfinished.mkdir()
    try:
        readable: list[np.ndarray] = []
        checksums: list[int] = []
        with (
            (unfinished / _IMAGES).open("wb") as file,
            concurrent.futures.ThreadPoolExecutor(max(threads, 1)) as pool,
            tqdm(total=len(records), desc=f"decoding {records.name}", unit="samples", disable=None) as progress,
        ):
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": _shape(decoded)}
            )
            for rows in np.array_split(np.arange(len(records)), -(-len(records) // _CHUNK)):
                parts = np.array_split(rows, min(len(rows), 4 * max(threads, 1)))
                for images, ok in pool.map(decoded.read, parts):
                    file.write(images.data)
                    readable.append(ok)
                    checksums += [zlib.crc32(image) for image in images]
                progress.update(len(rows))
            file.flush()
            os.fsync(file.fileno())
        np.savez(unfinished / _TABLE, readable=np.concatenate(readable), checksums=np.array(checksums, np.uint32))
        unfinished.rename(place)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
