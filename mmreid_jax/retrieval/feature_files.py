"""Feature files: one ``.npz`` file, or for many images a folder that is written row by row and read by memory map.

A folder holds ``features.npy`` and ``table.npz`` (file names, labels and note). While it is written the features are
called ``features.npy.unfinished``; ``progress_0.json`` says how many rows of the first process are on the disk. In a
job of several processes, which must share the folder, each writes a slice of the rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import metrics

ROWS, TABLE = "features.npy", "table.npz"
_UNFINISHED = f"{ROWS}.unfinished"
# Rows between two entries of the progress.
_EVERY = 2048


@dataclasses.dataclass(frozen=True)
class Features:
    """What a feature file holds.

    Attributes:
      features: float [N, D]; a memory map where the file is a folder or a ``.npy`` file.
      files: str [N], names of the images.
      labels: identity, camera and scene of the images; None where they are not known.
      note: what the features come from, and how they are to be compared.
    """

    features: np.ndarray
    files: np.ndarray
    labels: metrics.Labels | None
    note: dict[str, Any]


def is_feature_file(path: Path) -> bool:
    """Whether a path names features rather than images."""
    return path.suffix in (".npz", ".npy") or any((path / name).is_file() for name in (ROWS, TABLE))


def save(path: Path, stored: Features) -> None:
    """Writes a feature file; complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_table(path, stored.files, stored.labels, stored.note, features=stored.features)


def load(path: Path) -> Features:
    """Reads a feature file; another program's needs ``features`` alone, and ``identity`` and ``camera`` for scores.

    A ``.npy`` file holds features alone, [N, D].

    Raises:
      UserError: the file is none, its arrays do not belong together, or it is not complete yet.
    """
    try:
        if path.is_dir():
            if not (path / ROWS).is_file() and (path / _UNFINISHED).is_file():
                raise UserError(f"{path} is not complete; run the same mmreid_jax extract again, and it will go on")
            features = np.load(path / ROWS, mmap_mode="r", allow_pickle=False)
            _, files, labels, note = _read_table(path / TABLE, len(features))
        elif path.suffix == ".npy":
            features = np.load(path, mmap_mode="r", allow_pickle=False)
            files, labels, note = _numbers(len(features)), None, {}
        else:
            arrays, files, labels, note = _read_table(path)
            features = arrays["features"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a feature file of mmreid_jax extract ({error})") from None
    columns = [files] if labels is None else [files, labels.identity, labels.camera, labels.scene]
    if features.ndim != 2 or any(column.shape != features.shape[:1] for column in columns):
        shapes = ", ".join(str(list(column.shape)) for column in columns)
        raise UserError(
            f"{path}: features must be [number, dimension] and labels [number]; they are {list(features.shape)} and "
            f"{shapes}"
        )
    # A memory map is not read through here: who compares its rows looks at them (`retrieval.streamed`).
    if not isinstance(features, np.memmap) and not np.all(np.isfinite(features)):
        raise UserError(f"{path}: some features are not finite; extract them again")
    return Features(features, files, labels, note)


def write(
    folder: Path,
    files: np.ndarray,
    labels: metrics.Labels | None,
    note: dict[str, Any],
    model: str,
    rows: Callable[[int, int], Iterator[np.ndarray]],
) -> tuple[int, int]:
    """Writes a folder of features row by row, or goes on with one that an interrupted program left.

    In a job of several processes all must call it, with the same arguments but for `rows`.

    Args:
      folder: to write; complete features in it are replaced.
      files: str [N], names of the images.
      labels: of the images.
      note: see `Features`.
      model: what tells the model from others.
      rows: (start, stop) -> the features of these rows in order, in pieces [any number, D].

    Returns:
      (N, D).

    Raises:
      UserError: the folder holds unfinished features of other images or another model, or cannot be written.
    """
    processes, index = jax.process_count(), jax.process_index()
    first, last = (len(files) * part // processes for part in (index, index + 1))
    facts = json.dumps([note, model, processes, "\n".join(files.tolist())])
    mark = hashlib.sha256(facts.encode()).hexdigest()
    progress = folder / f"progress_{index}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        done, width = _resume(folder, progress, mark)
        if not index:
            (folder / ROWS).unlink(missing_ok=True)
            _write_table(folder / TABLE, files, labels, note)
        for piece in rows(first + done, last):
            if not done or piece.shape[1] != width:
                width = piece.shape[1]
                _allocate(folder / _UNFINISHED, len(files), width)
            _put(folder / _UNFINISHED, piece, first + done)
            before, done = done, done + len(piece)
            if before // _EVERY != done // _EVERY or first + done == last:
                _replace(progress, json.dumps({"mark": mark, "rows": done, "width": width}).encode())
        _wait("features are written")
        if not index:
            (folder / _UNFINISHED).replace(folder / ROWS)
            for each in folder.glob("progress_*.json"):
                each.unlink()
        _wait("features are complete")
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror}); name a folder that can be written") from None
    return len(files), width


def _resume(folder: Path, progress: Path, mark: str) -> tuple[int, int]:
    """(rows of this process that are written, their width); 0, 0 where a program begins."""
    if not progress.is_file() or not (folder / _UNFINISHED).is_file():
        return 0, 0
    try:
        state = json.loads(progress.read_text())
    except ValueError:
        state = {}
    if state.get("mark") != mark:
        raise UserError(
            f"{folder} holds unfinished features of other images or another model; delete it or name another folder"
        )
    return int(state["rows"]), int(state["width"])


def _allocate(path: Path, count: int, width: int) -> None:
    """Makes a ``.npy`` file of float32 [count, width] of zeros, or leaves what processes have written to it."""
    header = _header(count, width)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        file.write(header)
        file.truncate(len(header) + 4 * count * width)


def _header(count: int, width: int) -> bytes:
    """Of a ``.npy`` file of float32 [count, width]."""
    stream = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(np.dtype("<f4")), "fortran_order": False}
    np.lib.format.write_array_header_1_0(stream, {**described, "shape": (count, width)})
    return stream.getvalue()


def _put(path: Path, piece: np.ndarray, start: int) -> None:
    """Writes rows to their place, so that they are on the disk."""
    with path.open("r+b") as file:
        header = np.lib.format.read_magic(file) and np.lib.format.read_array_header_1_0(file)
        file.seek(file.tell() + 4 * start * header[0][1])
        file.write(np.ascontiguousarray(piece, "<f4").tobytes())
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, content: bytes) -> None:
    """Writes a file, complete or not at all."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def _wait(what: str) -> None:
    """For the other processes of the job."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)


def _write_table(
    path: Path, files: np.ndarray, labels: metrics.Labels | None, note: dict[str, Any], **more: Any
) -> None:
    """Writes an ``.npz`` file, complete or not at all."""
    unfinished = path.with_name(path.name + ".unfinished.npz")
    columns: dict[str, Any] = {} if labels is None else dataclasses.asdict(labels)
    np.savez(unfinished, files=files, note=json.dumps(note), **more, **columns)
    unfinished.replace(path)


def _read_table(
    path: Path, count: int | None = None
) -> tuple[dict[str, np.ndarray], np.ndarray, metrics.Labels | None, dict[str, Any]]:
    """(arrays, files, labels, note) of an ``.npz`` file about `count` rows, or about its features."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    count = len(arrays["features"]) if count is None else count
    labels = None
    if "identity" in arrays and "camera" in arrays:
        scene = arrays["scene"] if "scene" in arrays else np.zeros(count, np.int32)
        labels = metrics.Labels(arrays["identity"], arrays["camera"], scene)
    note = json.loads(str(arrays["note"])) if "note" in arrays else {}
    return arrays, arrays["files"] if "files" in arrays else _numbers(count), labels, note


def _numbers(count: int) -> np.ndarray:
    """Names of images that have none."""
    return np.arange(count).astype(str)
