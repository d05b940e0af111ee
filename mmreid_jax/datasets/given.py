"""Images that a program has in hand (a folder, paths, arrays) as a records table, for `mmreid_jax.model.Model`."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmreid_jax.data import listing
from mmreid_jax.data.records import Records, View
from mmreid_jax.datasets import folder
from mmreid_jax.errors import UserError, printable

Image = str | Path | np.ndarray
"""A file, or uint8 [H, W, 3]."""
Images = Records | str | Path | np.ndarray | Sequence[Image] | Mapping[str, Any]
"""A table, a folder, images of the first modality, or modality -> a folder or images."""


@dataclasses.dataclass(frozen=True)
class GivenImages:
    """Files and arrays by modality; see `mmreid_jax.data.records.ImageSource`.

    Attributes:
      images: modality -> one file or array for each sample.
    """

    images: Mapping[str, Sequence[Path | np.ndarray]]

    def __len__(self) -> int:
        return len(next(iter(self.images.values())))

    def encoded(self, indices: Sequence[int]) -> list[dict[str, bytes]]:
        """See `mmreid_jax.data.records.ImageSource`."""
        return [{name: _encoded(column[i]) for name, column in self.images.items()} for i in indices]


def table(images: Images, modalities: Sequence[str], *, one: bool = False) -> tuple[Records, tuple[str, ...]]:
    """The images as a table.

    Args:
      images: see `Images`. The images of several modalities belong together by their position; those of folders must
        have the same names.
      modalities: what the model sees, in its order.
      one: the model sees one modality at a time; images must then say which they are of, by a mapping or as
        `folder.open_folder` says.

    Returns:
      (table with identity -1 and camera 0 where it was none before, modalities of which there is no image).

    Raises:
      UserError: there is no image, a file is missing, an array is none of an image, the model does not know a modality,
        or the modalities have different numbers of images.
    """
    if isinstance(images, Records):
        return _completed(images, modalities)
    if isinstance(images, str | Path):
        if Path(images).is_file():
            images = [images]
        else:
            records, absent = folder.open_folder(images, modalities, one=one)
            return _complete(records), absent
    if not isinstance(images, Mapping):
        if one and len(modalities) > 1:
            raise UserError(
                f"nothing says which modality these images are of, and this model sees {' or '.join(modalities)} by "
                f"networks of their own; give them as {{{modalities[-1]!r}: images}}"
            )
        images = {modalities[0]: images}
    unknown = [name for name in images if name not in modalities]
    if unknown or not images:
        what = f"the model does not know the modality {unknown[0]!r}" if unknown else "there are no images"
        raise UserError(f"{what}; it sees {', '.join(modalities)}")
    columns = {name: _column(images[name], name) for name in modalities if name in images}
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise UserError(f"there are {listed}; every sample needs one image of each modality given")
    if not min(counts.values()):
        raise UserError(f"there are no images of {', '.join(counts)}")
    _check_names(images, columns)
    first = next(iter(columns))
    files = [str(each) if isinstance(each, Path) else f"{i}" for i, each in enumerate(columns[first])]
    nobody = np.zeros(len(files), np.int32)
    whole = Records(
        name=f"{len(files)} images",
        identity=nobody - 1,
        camera=nobody,
        scene=nobody,
        file=np.array(files),
        views={name: View(name) for name in columns},
        source=GivenImages(columns),
        rows=np.arange(len(files)),
    )
    return _completed(whole, modalities)


def with_texts(records: Records, text: Mapping[str, Sequence[str]], modalities: Sequence[str]) -> Records:
    """The table with texts that go with its images.

    Args:
      records: N samples.
      text: modality -> N texts, or one for all: of the visible one what the people look like, of the infrared one what
        its images show by themselves; "" where that is not given.
      modalities: of the model.

    Raises:
      UserError: the model does not know a modality, or there are not N texts.
    """
    texts = {}
    for name in {**dict.fromkeys(modalities), **text}:
        given = text.get(name, [""])
        given = [given] if isinstance(given, str) else list(given)
        if name not in modalities or len(given) not in (1, len(records)):
            raise UserError(
                f"there are {len(given)} texts of {name!r} for {len(records)} images; give one for each or one for all,"
                f" of {' or '.join(modalities)}"
            )
        texts[name] = np.array(given * (len(records) if len(given) == 1 else 1), object)
    return dataclasses.replace(records, captions=texts)


def _completed(records: Records, modalities: Sequence[str]) -> tuple[Records, tuple[str, ...]]:
    """The table with all modalities in the order of the model, and those that it did not have.

    A modality that is not there points at an image that is; zeros replace its pixels before the network sees them.
    """
    first = next(iter(records.views.values()))
    views = {name: records.views.get(name, first) for name in modalities}
    unknown = [name for name in records.views if name not in views]
    if unknown:
        raise UserError(f"{records.name} holds {', '.join(unknown)}, but the model sees {', '.join(modalities)}")
    return dataclasses.replace(records, views=views), tuple(name for name in modalities if name not in records.views)


def _complete(records: Records) -> Records:
    """The table of a folder; `UserError` where files of it cannot be used, because rows are counted on."""
    if records.left_out:
        raise UserError(
            f"{len(records.left_out)} files in {records.name} cannot be used: {listing.in_words(records.left_out)}; "
            "give the files as a list"
        )
    return records


def _column(images: Any, modality: str) -> Sequence[Path | np.ndarray]:
    """The images of one modality, checked."""
    if isinstance(images, str | Path):
        place = Path(images)
        if not place.is_dir():
            raise UserError(f"there is no folder {printable(place)}; give one of {modality} images, or a list of files")
        listed, _ = folder.open_folder(place, [modality], modality)
        return [place / name for name in _complete(listed).file.tolist()]
    if not isinstance(images, Sequence | np.ndarray):
        raise UserError(
            f"{modality} images are a {type(images).__name__}; give a folder, a list of files, or uint8 [N, H, W, 3]"
        )
    column: list[Path | np.ndarray] = []
    for position, image in enumerate(images):
        if isinstance(image, str | Path):
            if not Path(image).is_file():
                raise UserError(f"there is no file {printable(image)}, number {position} of the {modality} images")
            column.append(Path(image))
            continue
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or not array.size:
            raise UserError(
                f"number {position} of the {modality} images is {array.dtype} {list(array.shape)}; an image is a file"
                " or uint8 [height, width, 3]"
            )
        column.append(array)
    return column


def _check_names(images: Mapping[str, Any], columns: Mapping[str, Sequence[Path | np.ndarray]]) -> None:
    """Raises a `UserError` where folders of several modalities hold other names: their images would be mixed up."""
    named = {
        name: [each.name for each in columns[name] if isinstance(each, Path)]
        for name, given in images.items()
        if isinstance(given, str | Path)
    }
    for name, files in list(named.items())[1:]:
        first = next(iter(named))
        for ours, theirs in zip(named[first], files, strict=True):
            if ours != theirs:
                raise UserError(
                    f"{printable(images[first])} and {printable(images[name])} must hold the same file names, one per "
                    f"sample; where one has {printable(ours)}, the other has {printable(theirs)}"
                )


def _encoded(image: Path | np.ndarray) -> bytes:
    """An image file; an array becomes one without loss."""
    if isinstance(image, Path):
        return listing.read_file(image)
    from PIL import Image as Pillow

    stream = io.BytesIO()
    Pillow.fromarray(image).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
