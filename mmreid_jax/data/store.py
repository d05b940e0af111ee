"""A store of decoded and resized images on disk, so that files are decoded once and not once an epoch.

Resizing comes before anything random, so what is stored is all that is deterministic in the pipeline, and a batch from
the store equals one decoded on the fly bit for bit. A store is one uint8 array [N, M, H, W, 3] in a folder of its own,
memory-mapped, so threads and worker processes share one copy in the page cache.

The folder's name holds what went into it: table name, size, interpolation, and a digest of files, rows, views, policy
and the bytes of a few samples. Other data give another folder; nothing is ever overwritten. Deleting a folder is always
safe.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import logging
import os
import re
import shutil
from pathlib import Path

import numpy as np

from mmreid_jax import locks
from mmreid_jax.data.images import DecodedImages, Pixels, report_broken
from mmreid_jax.errors import UserError

_FORMAT = 1
_IMAGES, _READABLE = "images.npy", "readable.npy"
_SAMPLED_ROWS = 64
_CHUNK = 128
_log = logging.getLogger(__name__)


class Store:
    """The images of a finished store; picklable, every process maps the file for itself.

    Attributes:
      folder: of the store.
    """

    def __init__(self, folder: Path) -> None:
        """Opens the store in `folder`; `UserError` if it is damaged."""
        self.folder = folder
        try:
            self._images = np.asarray(np.load(folder / _IMAGES, mmap_mode="r"))
            self._readable = np.load(folder / _READABLE)
        except (OSError, ValueError) as error:
            raise UserError(f"the image store {folder} is damaged ({error}); delete that folder") from error

    def __reduce__(self) -> tuple[type[Store], tuple[Path]]:
        return Store, (self.folder,)

    @property
    def broken_rows(self) -> list[int]:
        """Rows whose files could not be decoded."""
        return np.flatnonzero(~self._readable).tolist()

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `images.Pixels.read`."""
        return self._images[rows], self._readable[rows]

    def whole(self, threads: int) -> tuple[np.ndarray, np.ndarray]:
        """See `images.Pixels.whole`; the images are those of the file, read when they are looked at."""
        del threads
        return self._images, self._readable


def open_pixels(decoded: DecodedImages, *, folder: str = "", limit_gib: float = 0.0, threads: int = 1) -> Pixels:
    """The store of `decoded` where one may be used, built now if there is none yet; else `decoded` itself.

    Args:
      decoded: table, size, interpolation and policy.
      folder: where stores live; empty for none.
      limit_gib: a store larger than this (GiB) is not made.
      threads: decoding while building.

    Returns:
      A `Store`, or `decoded` where the store is switched off, too large, or cannot be written: no space or no
      permission is one warning, not the end of the run.
    """
    size = len(decoded.records) * _row_bytes(decoded)
    if not folder or size > limit_gib * 2**30:
        return decoded
    place = Path(folder).expanduser() / _name(decoded)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        # Of several processes that want the same store, one builds and the others wait.
        with locks.exclusive(place.with_suffix(".lock")):
            if not place.exists():
                _build(decoded, place, size, threads)
    except OSError as error:
        _log.warning("no image store at %s (%s): images are decoded whenever they are read", place, error)
        return decoded
    store = Store(place)
    report_broken(decoded.records, store.broken_rows, "replaced")
    return store


def _row_bytes(decoded: DecodedImages) -> int:
    return len(decoded.records.views) * decoded.size[0] * decoded.size[1] * 3


def _name(decoded: DecodedImages) -> str:
    """Name of the store's folder: what people want to know, then a digest of the rest."""
    records = decoded.records
    digest = hashlib.sha256()
    views = [(name, view.image, view.columns) for name, view in records.views.items()]
    digest.update(repr((_FORMAT, records.name, views, decoded.broken)).encode())
    digest.update(np.ascontiguousarray(records.rows, np.int64).tobytes())
    digest.update("\n".join(map(str, records.file)).encode())
    sampled = np.unique(np.linspace(0, len(records) - 1, _SAMPLED_ROWS).astype(int))
    for stored in records.encoded(sampled.tolist()):
        for name, encoded in sorted(stored.items()):
            digest.update(name.encode() + hashlib.sha256(encoded).digest())
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", records.name)
    return f"{readable}-{decoded.size[0]}x{decoded.size[1]}-{decoded.interpolation}-{digest.hexdigest()[:16]}"


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
        readable = []
        shape = (len(records), len(records.views), *decoded.size, 3)
        with (
            (unfinished / _IMAGES).open("wb") as file,
            concurrent.futures.ThreadPoolExecutor(max(threads, 1)) as pool,
            tqdm(total=len(records), desc=f"decoding {records.name}", unit="samples", disable=None) as progress,
        ):
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for rows in np.array_split(np.arange(len(records)), -(-len(records) // _CHUNK)):
                parts = np.array_split(rows, min(len(rows), 4 * max(threads, 1)))
                for images, ok in pool.map(decoded.read, parts):
                    file.write(images.data)
                    readable.append(ok)
                progress.update(len(rows))
            file.flush()
            os.fsync(file.fileno())
        np.save(unfinished / _READABLE, np.concatenate(readable))
        unfinished.rename(place)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
