"""The images of a CSV table: a row for each image, or for each sample with a column for each modality."""

from __future__ import annotations

import csv
import io
import os
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence

from mmreid_jax.datasets.own import naming
from mmreid_jax.datasets.own.arrange import FoundImage
from mmreid_jax.datasets.own.description import MODALITIES
from mmreid_jax.datasets.own.faults import Faults
from mmreid_jax.errors import UserError, printable
from mmreid_jax.paths import read_text, reason_of

COLUMNS: Mapping[str, str] = {
    "file": "image, below the folder of the table (or --folder)",
    "rgb, nir, tir": "in place of file: the images of one sample, aligned",
    "identity": "of whom it shows, a number or a name",
    "camera": "optional: that took it",
    "scene": "optional: scene or time (a column time is the same)",
    "modality": "optional: rgb, nir or tir, and the words that folders may have",
    "split": "optional: train, query, gallery or test",
    "caption": "optional: what it shows in words, of unaligned images (TVI-LFM reads them)",
    "sample": "optional: rows of one value are aligned images of one sample",
}
"""Columns and what they hold."""
_KNOWN = ("file", *MODALITIES, "identity", "camera", "scene", "time", "modality", "split", "sample", "caption")
_SEPARATORS = ",;\t"


def read(path: pathlib.Path, root: pathlib.Path, faults: Faults) -> list[FoundImage]:
    """All images that a table names.

    Args:
      path: of the table, UTF-8, with a line of `COLUMNS` first; separated by commas, semicolons or tabs.
      root: folder that its files lie below.
      faults: gets what is wrong.

    Raises:
      UserError: the table cannot be read, is empty or lacks a column that must be there.
    """
    rows, columns = _rows(path)
    files = [name for name in MODALITIES if name in columns] or ["file"]
    _check_columns(path, columns, files)
    found: list[FoundImage] = []
    for line, row in rows:
        where = f"line {line}"
        if not row["identity"]:
            faults.add("rows have no identity", where)
            continue
        split = naming.SPLITS.get(row.get("split", "").lower(), "")
        if row.get("split") and not split:
            faults.add(f"rows have an unknown split (known are {', '.join(naming.SPLITS)})", where)
        for column in files:
            name = row[column].replace("\\", "/")
            modality = _modality(row, column, where, faults)
            if not (name and _is_there(root, name, column, where, faults)):
                if not name:
                    faults.add(f"rows name no {column}", where)
                continue
            found.append(
                FoundImage(
                    root / name,
                    name,
                    row["identity"],
                    camera=row.get("camera", ""),
                    scene=row.get("scene", "") or row.get("time", ""),
                    modality=modality,
                    split=split,
                    caption=row.get("caption", ""),
                    key=where if column != "file" else row.get("sample") or name,
                )
            )
    names = Counter(each.file for each in found)
    faults.add("files are named twice", [name for name, count in names.items() if count > 1])
    if not found and not faults:
        raise UserError(f"{printable(path)} has no row; write one for each image")
    return found


def _check_columns(path: pathlib.Path, columns: Sequence[str], files: Sequence[str]) -> None:
    """Raises a `UserError` where a table has not the columns that it needs, or has others."""
    unknown = [name for name in columns if name not in _KNOWN]
    if unknown:
        raise UserError(f"{printable(path)} has a column {printable(unknown[0])!r}; there are {', '.join(_KNOWN)}")
    if "identity" not in columns or not set(files) <= set(columns) or ("file" in columns and "file" not in files):
        raise UserError(
            f"{printable(path)} has the columns {', '.join(map(printable, columns))}; it needs identity, and file or "
            f"one column of files for each modality ({', '.join(MODALITIES)})"
        )


def _is_there(root: pathlib.Path, name: str, column: str, where: str, faults: Faults) -> bool:
    """Whether a file that a row names is there, below the root."""
    place = root / name
    if not pathlib.Path(os.path.normpath(place)).is_relative_to(os.path.normpath(root)):
        faults.add(f"files lie outside of {root} (--folder names another)", f"{name} ({where})")
        return False
    if not place.is_file():
        faults.add("files are not there" if column == "file" else f"{column} files are not there", f"{name} ({where})")
        return False
    return True


def _modality(row: Mapping[str, str], column: str, where: str, faults: Faults) -> str:
    """The modality of a file, which its column or the row says; visible where nothing does."""
    if column in MODALITIES:
        return column
    word = row.get("modality", "")
    modality = naming.modality_of(word) if word else "rgb"
    if not modality:
        faults.add("rows have an unknown modality (known are rgb, nir, tir and their other words)", f"{where} ({word})")
    return modality or "rgb"


def _rows(path: pathlib.Path) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """(line, values by column without blanks around them) of the rows that are not empty, and the columns."""
    try:
        text = read_text(path)
    except UnicodeDecodeError:
        raise UserError(f"{printable(path)} is not UTF-8; save the table as CSV in UTF-8") from None
    except OSError as error:
        raise UserError(f"the table {printable(path)} cannot be read ({reason_of(error)}); name a CSV file") from None
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(_SEPARATORS, key=first.count))
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
    except csv.Error as error:
        raise UserError(f"{printable(path)} is no table in CSV: its first line, {error}") from None
    if twice := [name for name, count in Counter(columns).items() if name and count > 1]:
        raise UserError(f"{printable(path)} has two columns {printable(twice[0])!r}; leave one of them out")
    rows = []
    try:
        for values in reader:
            padded = [*values, *[""] * (len(columns) - len(values))]
            row = {name: value.strip() for name, value in zip(columns, padded, strict=False)}
            if any(row.values()):
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise UserError(f"{printable(path)} is no table in CSV: line {reader.line_num}, {error}") from None
    return rows, columns
