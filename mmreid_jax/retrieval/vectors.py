"""Features for vector search: a table in Parquet, or an array with a table beside it, which other programs read.

Columns: ``id`` (row), ``file``, ``camera``, ``identity`` (-1 where they are not known), ``modality`` and in Parquet
``vector``, of length one. FAISS, LanceDB, Qdrant and Milvus take them as they are: docs/vector_search.md. Bytes of a
name that are not UTF-8 are written as ``\\udcff``, and in the table in text no name is a formula (`matches.harmless`).
"""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from mmreid_jax import owned
from mmreid_jax.errors import UserError, printable
from mmreid_jax.paths import whole
from mmreid_jax.retrieval import distances, metrics
from mmreid_jax.retrieval.matches import harmless

COLUMNS = ("id", "file", "camera", "identity", "modality")
DTYPES = ("float32", "float16")
_MARK = b"mmreid_jax"


def table_of(path: Path) -> Path:
    """The table that stands beside a ``.npy`` file."""
    return path.with_suffix(".csv")


def check_target(path: Path) -> None:
    """Says whether a file may be written, before there is one.

    Raises:
      UserError: there is one that this program did not write.
    """
    if path.suffix == ".parquet":
        _pyarrow()
        owned.check_file(path, _is_our_parquet, "table of features")
        return
    owned.check_file(table_of(path), _is_our_table, "table of features")
    owned.check_file(path, lambda _: _is_our_table(table_of(path)), "array of features")


def write(
    path: Path,
    features: np.ndarray,
    files: np.ndarray,
    labels: metrics.Labels | None,
    modality: str,
    note: dict[str, Any],
    dtype: str = "float32",
) -> None:
    """Writes features at length one, complete or not at all.

    Args:
      path: ``.parquet``, or ``.npy`` with the table beside it.
      features: float [N, D].
      files: str [N], names of the images.
      labels: of the images; None where they are not known.
      modality: that the model has seen, several with commas.
      note: where the features come from, see `feature_files.Features`; in Parquet's metadata.
      dtype: of the numbers, one of DTYPES.
    """
    count = len(features)
    rows = distances.l2_normalise(features).astype(dtype)
    unknown = np.full(count, -1, np.int32)
    camera, identity = (unknown, unknown) if labels is None else (labels.camera, labels.identity)
    columns = [np.arange(count), files, camera, identity, np.full(count, modality)]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        _write_parquet(path, rows, dict(zip(COLUMNS, columns, strict=True)), note)
        return
    columns[1] = np.array([harmless(name) for name in files.tolist()], np.str_)
    # Both or none; the table has its name first, for it says whose the array is.
    with whole(path, ".part.npy") as array, whole(table_of(path)) as part:
        with part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(zip(*(column.tolist() for column in columns), strict=True))
        np.save(array, rows)


def _write_parquet(path: Path, rows: np.ndarray, columns: dict[str, np.ndarray], note: dict[str, Any]) -> None:
    arrow, parquet = _pyarrow()
    kinds = {"id": arrow.int64(), "camera": arrow.int32(), "identity": arrow.int32()}
    names = [name.encode("utf-8", "backslashreplace").decode() for name in columns["file"].tolist()]
    listed = {name: column.tolist() for name, column in columns.items()} | {"file": names}
    arrays = {name: arrow.array(column, kinds.get(name, arrow.string())) for name, column in listed.items()}
    flat = arrow.array(np.ascontiguousarray(rows).reshape(-1))
    arrays["vector"] = arrow.FixedSizeListArray.from_arrays(flat, rows.shape[1])
    table = arrow.table(arrays).replace_schema_metadata({_MARK: json.dumps(note)})
    with whole(path) as part:
        parquet.write_table(table, part)


def read(path: Path) -> tuple[np.ndarray, np.ndarray, metrics.Labels | None, dict[str, Any]]:
    """Features, names, labels and note of a ``.parquet`` file of this program or of the same columns.

    Raises:
      UserError: it is none, or has no column ``vector`` of numbers.
    """
    arrow, parquet = _pyarrow()
    try:
        table = parquet.read_table(path)
        vectors = table.column("vector").combine_chunks()
        width = vectors.type.list_size if arrow.types.is_fixed_size_list(vectors.type) else 0
        features = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(table), width)
        names = [str(name) for name in table.column("file").to_pylist()] if "file" in table.column_names else None
        note = json.loads((table.schema.metadata or {}).get(_MARK, b"{}"))
    except (OSError, KeyError, ValueError, TypeError, AttributeError, arrow.ArrowException) as error:
        reason = printable(str(error).splitlines()[0] if str(error) else type(error).__name__, 200)
        raise UserError(f"{path} is no table of features with a column vector ({reason})") from None
    files = np.array(names) if names is not None else np.arange(len(features)).astype(str)
    known = {"identity", "camera"} <= set(table.column_names)
    columns = [np.asarray(table.column(name).to_pylist(), np.int64) for name in ("identity", "camera")] if known else []
    labels = None
    if columns and (columns[0] >= 0).any():
        labels = metrics.Labels(columns[0], columns[1], np.zeros(len(files), np.int64))
    return features, files, labels, note if isinstance(note, dict) else {}


def columns_beside(path: Path) -> dict[str, np.ndarray]:
    """What the table beside a ``.npy`` file says of its rows: ``files``, and ``identity`` and ``camera`` where known.

    Empty where there is no table, or it is not of this program.

    Raises:
      UserError: the table is damaged.
    """
    table = table_of(path)
    if not _is_our_table(table):
        return {}
    files, labels = [], []
    try:
        with table.open(newline="", encoding="utf-8") as file:
            for _, name, where, who, _ in itertools.islice(csv.reader(file), 1, None):
                files.append(name)
                labels.append((int(where), int(who)))
        camera, identity = np.array(labels, np.int64).reshape(-1, 2).T
    except (OSError, ValueError, OverflowError, csv.Error) as error:
        raise UserError(f"{table} is damaged ({printable(str(error), 200)}); extract the features again") from None
    known = {"camera": camera, "identity": identity} if (identity >= 0).any() else {}
    return {"files": np.array(files, str), **known}


def _is_our_parquet(path: Path) -> bool:
    arrow, parquet = _pyarrow()
    try:
        return _MARK in (parquet.read_schema(path).metadata or {})
    except (OSError, arrow.ArrowException):
        return False


def _is_our_table(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline().strip() == ",".join(COLUMNS)
    except (OSError, UnicodeDecodeError):
        return False


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError("Parquet needs pyarrow, which is not installed; pip install pyarrow, or write .npz") from None
    return pyarrow, pyarrow.parquet
