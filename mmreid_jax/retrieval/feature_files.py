"""Feature files: one ``.npz`` file, or for many images a folder that is written row by row and read by memory map.

A folder holds ``features.npy`` and ``table.npz`` (file names, labels and note). While it is written they are called
``features.npy.unfinished`` and ``table.npz.unfinished``; ``progress_0.json`` says how many rows of the first process
are on the disk. Features from before stay until the new ones are complete; then they are moved aside, the new ones take
their names, and the old ones are deleted. In a job of several processes, which must share the folder, each writes a
slice of the rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import lzma
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

from mmreid_jax import owned
from mmreid_jax.convert.budget import BoundedFile, Excessive
from mmreid_jax.errors import UserError, printable
from mmreid_jax.paths import read_json, whole
from mmreid_jax.retrieval import metrics, vectors

ROWS, TABLE = "features.npy", "table.npz"
_UNFINISHED, _UNFINISHED_TABLE = f"{ROWS}.unfinished", f"{TABLE}.unfinished"
_REPLACED = f"{ROWS}.replaced"
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
    return path.suffix in (".npz", ".npy", ".parquet") or any(
        (path / name).is_file() for name in (ROWS, TABLE, _UNFINISHED, _UNFINISHED_TABLE)
    )


def save(path: Path, stored: Features) -> None:
    """Writes a feature file; complete or not at all."""
    check_target(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_table(path, stored.files, stored.labels, stored.note, features=stored.features)


def check_target(path: Path) -> None:
    """Says whether features may be written to a path, before there are any.

    Raises:
      UserError: there is a file that is no feature file of this program, or a folder with features of another one.
    """
    if path.suffix == ".npz":
        owned.check_file(path, _is_ours, "feature file")
    elif path.is_dir():
        owned.check_file(path / TABLE, _is_ours, "table of features")
        if not (path / TABLE).is_file() and (path / ROWS).exists():
            raise UserError(
                f"{path / ROWS} is not overwritten: {path} has no {TABLE} beside it, so mmreid_jax did not write it; "
                f"choose another folder"
            )


def _is_ours(path: Path) -> bool:
    """Whether a file is one that `_write_table` wrote."""
    try:
        return {"files", "note"} <= _members(path).keys() and isinstance(
            _note(path, _read_members(path, ("note",))), dict
        )
    except (OSError, UserError, *_FAULTS):
        return False


def load(path: Path) -> Features:
    """Reads a feature file; another program's needs ``features`` alone, and ``identity`` and ``camera`` for scores.

    A ``.npy`` file holds features alone, [N, D], with names and labels in the table beside it, if there is one; a
    ``.parquet`` file has a column ``vector`` (see `vectors`). Features are float16, float32 or float64 and finite (a
    memory map is not read through here: who compares its rows looks at them, see `retrieval.streamed`); identities,
    cameras and scenes are whole numbers, names are text, and the note is what `mmreid_jax extract` writes.

    Raises:
      UserError: the file is none, its arrays are of other kinds or do not belong together, or it is not complete yet.
    """
    if path.suffix == ".parquet":
        features, files, labels, note = vectors.read(path)
        features = _checked_features(path, features)
        check_values(path, features, files)
        return Features(features, files, labels, note)
    try:
        if path.is_dir():
            if (path / _UNFINISHED).is_file():
                before = f", or delete {_UNFINISHED} to keep those from before" if (path / ROWS).is_file() else ""
                again = f"run the same mmreid_jax extract again, and it will go on{before}"
                raise UserError(f"{path} is not complete; {again}")
            features = _mapped(path / ROWS)
            arrays = _read_members(path / TABLE, ("files", "note", *_LABELS))
        elif path.suffix == ".npy":
            features, arrays = _mapped(path), vectors.columns_beside(path)
        else:
            arrays = _read_members(path, ("features", "files", "note", *_LABELS))
            if "features" not in arrays:
                raise ValueError("it holds no array called features")
            features = arrays["features"]
    except (OSError, *_FAULTS) as error:
        reason = printable(getattr(error, "strerror", None) or str(error) or type(error).__name__, 200)
        raise UserError(f"{path} is not a feature file of mmreid_jax extract ({reason})") from None
    features = _checked_features(path, features)
    files = _checked_files(path, arrays.get("files"), len(features))
    labels = _checked_labels(path, arrays, len(features))
    columns = [files] if labels is None else [files, labels.identity, labels.camera, labels.scene]
    if any(column.shape != features.shape[:1] for column in columns):
        raise UserError(_misfit(path, features, columns))
    if not isinstance(features, np.memmap):
        check_values(path, features, files)
    return Features(features, files, labels, _note(path, arrays))


# ------------------------------------------------------------------------------------------------- reading safely

_LABELS = ("identity", "camera", "scene")
# What damaged, hostile and foreign files provoke in `zipfile` and `numpy.lib.format`.
_FAULTS = (
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    EOFError,
    SyntaxError,
    RuntimeError,
    MemoryError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    Excessive,
)
# Arrays may be compressed, and names of files are so by twenty times; more is a file that only wants memory.
_FREE_BYTES, _BYTES_PER_BYTE = 256 << 20, 20
_LONGEST_DIRECTORY, _LONGEST_HEADER, _PIECE = 8 << 20, 10_000, 1 << 20
_LONGEST_NOTE, _LONGEST_NAME = 1 << 20, 4096
# Larger values have squares whose sum float32 cannot hold.
_LARGEST_VALUE = 1e15
_ROWS_TOGETHER = 4096


def _members(path: Path) -> dict[str, zipfile.ZipInfo]:
    """Array name -> its record, of an ``.npz`` file."""
    with BoundedFile(path, _LONGEST_DIRECTORY) as file, zipfile.ZipFile(file) as archive:
        return {info.filename.removesuffix(".npy"): info for info in archive.infolist()}


def _read_members(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Those of the named arrays that an ``.npz`` file has; every size is compared before anything is allocated.

    Raises:
      ValueError and the rest of `_FAULTS`: the file makes no sense, or wants more memory than its size explains.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path.name}" if not path.exists() else f"{path.name} is no file")
    left = _FREE_BYTES + _BYTES_PER_BYTE * path.stat().st_size
    arrays: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(path) as archive:
        for name, info in _members(path).items():
            if name not in names or not info.filename.endswith(".npy"):
                continue
            left -= info.file_size
            if left < 0:
                raise ValueError(f"{name} unfolds to {info.file_size:,} bytes, far more than the file has")
            with archive.open(info) as member:
                arrays[name] = _read_array(member, name, info.file_size)
    return arrays


def _read_array(member: IO[bytes], name: str, size: int) -> np.ndarray:
    """One array of a record of so many bytes."""
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} is of the unknown version {version} of numpy's format")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(member, max_header_size=_LONGEST_HEADER)
    count = math.prod(shape)
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"{name} holds Python objects, or nothing at all")
    if min(shape, default=0) < 0 or count * dtype.itemsize > size:
        raise ValueError(f"{name} says that it is {list(shape)}, which its {size:,} bytes do not hold")
    flat = np.empty(count, dtype)
    left = flat.view(np.uint8) if count else np.empty(0, np.uint8)
    while left.size:
        piece = np.frombuffer(member.read(min(left.size, _PIECE)), np.uint8)
        if not piece.size:
            raise ValueError(f"{name} is cut short")
        left[: piece.size] = piece
        left = left[piece.size :]
    # There must be no more; to ask also compares the record's check sum.
    if member.read(1):
        raise ValueError(f"{name} is longer than it says")
    return flat.reshape(shape, order="F" if fortran else "C")


def _mapped(path: Path) -> np.ndarray:
    """A memory map of a ``.npy`` file."""
    if not path.is_file():
        raise ValueError(f"there is no file {path.name}" if not path.exists() else f"{path.name} is no file")
    return np.lib.format.open_memmap(path, mode="r", max_header_size=_LONGEST_HEADER)


def _checked_features(path: Path, features: np.ndarray) -> np.ndarray:
    """Features as float16, float32 or float64 [N, D] in the machine's byte order."""
    if features.dtype.kind != "f" or features.dtype.itemsize > 8:
        raise UserError(
            f"{path}: features are {printable(str(features.dtype))}; store them as float32 (numpy: x.astype('float32'))"
        )
    if features.ndim != 2:
        raise UserError(_misfit(path, features, []))
    if not features.size:
        raise UserError(f"{path} holds no features (they are {list(features.shape)})")
    return features if features.dtype.isnative else features.astype(features.dtype.newbyteorder("="))


def check_values(path: Path, features: np.ndarray, files: np.ndarray) -> None:
    """Reads all features, a memory map too, and says which cannot be compared.

    Args:
      path: where they are from, for the message.
      features: [N, D].
      files: str [N], names of the images.

    Raises:
      UserError: some are not finite, or so large that float32 does not hold their squares; names the first image.
    """
    parts = (features[start : start + _ROWS_TOGETHER] for start in range(0, len(features), _ROWS_TOGETHER))
    largest = np.concatenate([np.abs(part).max(axis=1).astype(np.float64) for part in parts])
    for wrong, what in ((~np.isfinite(largest), "not finite"), (largest > _LARGEST_VALUE, "too large to compare")):
        if np.any(wrong):
            row = int(np.argmax(wrong))
            raise UserError(
                f"{path}: some features are {what}: those of {np.count_nonzero(wrong)} of {len(features)} images, "
                f"first of {printable(str(files[row]))} (row {row}); extract them again"
            )


def _checked_files(path: Path, files: np.ndarray | None, count: int) -> np.ndarray:
    """Names of images, str [N]; numbers where there are none."""
    if files is None:
        return _numbers(count)
    if files.dtype.kind not in "US" or files.ndim != 1:
        raise UserError(f"{path}: files must be names of images, text [number]; they are {_kind(files)}")
    if files.dtype.kind == "S":
        return np.char.decode(files, "utf-8", "replace")
    native = files if files.dtype.isnative else files.astype(files.dtype.newbyteorder("="))
    if native.size and np.ascontiguousarray(native).view(np.uint32).max(initial=0) > 0x10FFFF:
        raise UserError(f"{path}: files hold what is no text; extract them again")
    if native.dtype.itemsize > 4 * _LONGEST_NAME:
        raise UserError(
            f"{path}: files hold a name of {native.dtype.itemsize // 4:,} characters; no image has such a name"
        )
    return native


def _checked_labels(path: Path, arrays: Mapping[str, np.ndarray], count: int) -> metrics.Labels | None:
    """Identity, camera and scene as int64 [N]; None unless identity and camera are there."""
    if "identity" not in arrays or "camera" not in arrays:
        return None
    columns = {"scene": np.zeros(count, np.int64), **{name: arrays[name] for name in _LABELS if name in arrays}}
    for name, column in columns.items():
        if column.dtype.kind not in "iu" or column.ndim != 1:
            raise UserError(f"{path}: {name} must be whole numbers [number]; it is {_kind(column)}")
        if column.size and column.dtype.kind == "u" and column.max() > np.iinfo(np.int64).max:
            raise UserError(f"{path}: {name} holds numbers beyond those of 64 bits")
        columns[name] = column.astype(np.int64)
    return metrics.Labels(*(columns[name] for name in _LABELS))


def _kind(array: np.ndarray) -> str:
    return f"{printable(str(array.dtype))} {list(array.shape)}"


def _misfit(path: Path, features: np.ndarray, columns: Sequence[np.ndarray]) -> str:
    shapes = ", ".join(str(list(column.shape)) for column in columns)
    return f"{path}: features must be [number, dimension] and labels [number]; they are {list(features.shape)}" + (
        f" and {shapes}" if shapes else ""
    )


def _note(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What a file says of its features, with the types that this program writes; empty where it says nothing."""
    stored = arrays.get("note")
    if stored is None:
        return {}
    try:
        if stored.dtype.kind not in "US" or stored.ndim or stored.nbytes > 4 * _LONGEST_NOTE:
            raise ValueError(f"it is {_kind(stored)}")
        text = stored.item()
        note = json.loads(text if isinstance(text, str) else text.decode())
        if not isinstance(note, dict):
            raise ValueError("it is no JSON object")
        for key in ("dataset", "protocol", "distance"):
            if not isinstance(note.get(key, ""), str):
                raise ValueError(f"its {key} is no text")
        _check_rerank(note.get("rerank", {}))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}: the note is not one of mmreid_jax extract ({printable(error)}); leave it out of the file, or "
            f"extract the features again"
        ) from None
    return note


def _check_rerank(options: Any) -> None:
    """`ValueError` where a note's options of the re-ranking are none."""
    if not isinstance(options, dict):
        raise ValueError("its rerank is no JSON object")
    kinds: dict[str, tuple[type, ...]] = {"k1": (int,), "k2": (int,), "lambda_value": (int, float), "distance": (str,)}
    for name, value in options.items():
        if name not in kinds or not isinstance(value, kinds[name]) or isinstance(value, bool):
            raise ValueError(f"its rerank has {printable(name)} = {printable(value)}")


# --------------------------------------------------------------------------------------------------------- folders


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
      folder: to write; features in it are replaced once the new ones are complete.
      files: str [N], names of the images.
      labels: of the images.
      note: see `Features`.
      model: what tells the model from others.
      rows: (start, stop) -> the features of these rows in order, in pieces [any number, D].

    Returns:
      (N, D).

    Raises:
      UserError: the folder holds unfinished features of other images or another model, features that this program did
        not write, or cannot be written.
    """
    check_target(folder)
    processes, index = jax.process_count(), jax.process_index()
    first, last = (len(files) * part // processes for part in (index, index + 1))
    facts = json.dumps([note, model, processes, "\n".join(files.tolist())])
    mark = hashlib.sha256(facts.encode()).hexdigest()
    progress = folder / f"progress_{index}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        done, width = _resume(folder, progress, mark)
        if not index:
            _write_table(folder / _UNFINISHED_TABLE, files, labels, note)
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
            # While features are called unfinished nobody reads the table, and a command that is given again ends here.
            if (folder / ROWS).is_file():
                (folder / ROWS).replace(folder / _REPLACED)
            (folder / _UNFINISHED_TABLE).replace(folder / TABLE)
            (folder / _UNFINISHED).replace(folder / ROWS)
            for name in (_REPLACED, *(f"progress_{number}.json" for number in range(processes))):
                (folder / name).unlink(missing_ok=True)
        _wait("features are complete")
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror}); name a folder that can be written") from None
    return len(files), width


def _resume(folder: Path, progress: Path, mark: str) -> tuple[int, int]:
    """(rows of this process that are written, their width); 0, 0 where a program begins."""
    if not progress.is_file() or not (folder / _UNFINISHED).is_file():
        return 0, 0
    try:
        state = read_json(progress)
        there = int(state["rows"]), int(state["width"])
    except (ValueError, LookupError, TypeError):
        state = {}
    if not isinstance(state, dict) or state.get("mark") != mark:
        raise UserError(
            f"{folder / _UNFINISHED} holds features of other images or another model, not complete; delete it or name "
            f"another folder"
        )
    return there


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
    with whole(path) as part:
        part.write_bytes(content)


def _wait(what: str) -> None:
    """For the other processes of the job."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)


def _write_table(
    path: Path, files: np.ndarray, labels: metrics.Labels | None, note: dict[str, Any], **more: Any
) -> None:
    """Writes an ``.npz`` file, complete or not at all."""
    columns: dict[str, Any] = {} if labels is None else dataclasses.asdict(labels)
    with whole(path, ".part.npz") as part:
        np.savez(part, files=files, note=json.dumps(note), **more, **columns)


def _numbers(count: int) -> np.ndarray:
    """Names of images that have none."""
    return np.arange(count).astype(str)
