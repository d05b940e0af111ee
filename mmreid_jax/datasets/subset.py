"""Part of a split, named by a list of its files: the 141 training identities of RGBNT201, or a list of one's own."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from mmreid_jax.data import listing
from mmreid_jax.data.records import Records
from mmreid_jax.errors import UserError, printable


def listed(records: Records, place: str | os.PathLike[str]) -> Records:
    """The samples of a table whose files `place` lists, in the order of the table.

    Args:
      records: the table.
      place: a folder that holds the files, in itself or in folders of its own (``RGBNT201/train_141``), or a text file
        with a name or path a line, of which what follows a space is not read.

    Raises:
      UserError: there is nothing at `place`, no name in it, or a name that the table does not have.
    """
    names = _names(pathlib.Path(place))
    files = _compared(records)
    unknown = sorted(names - set(files))
    if unknown:
        raise UserError(
            f"{len(unknown)} of {len(names)} files listed by {place} are not in {records.name}, such as {unknown[0]}; "
            "give the list of this data set"
        )
    rows = np.flatnonzero(np.isin(files, sorted(names)))
    return records.select(rows, f"{records.name}, {len(rows)} of {len(records)} samples")


def _compared(records: Records) -> list[str]:
    """What names are compared with: base names where these tell the images of a modality apart, else whole ones."""
    bases = [pathlib.PurePosixPath(file).name for file in records.file.tolist()]
    modality = [""] * len(records) if records.modality is None else records.modality.tolist()
    return bases if len(set(zip(bases, modality, strict=True))) == len(records) else records.file.tolist()


def _names(place: pathlib.Path) -> set[str]:
    if place.is_dir():
        # Names alone count: the images are those of the table, whatever has become of these files.
        found = listing.list_images(place, below=True)
        names = {os.path.basename(path) for path in (*found.files, *found.unusable)}
        names = {name for name in names if not name.startswith(".")}
    elif place.is_file():
        try:
            lines = [line.split() for line in place.read_text(encoding="utf-8-sig").splitlines()]
        except UnicodeDecodeError:
            raise UserError(f"{printable(place)} is no text in UTF-8; give a text file with one name a line") from None
        names = {pathlib.PurePosixPath(words[0]).name for words in lines if words}
    else:
        raise UserError(f"there is neither a folder nor a list {place}; give the part of the data set to train on")
    if not names:
        raise UserError(f"{place} names no image; give a folder of images, or a text file with one name a line")
    return names
