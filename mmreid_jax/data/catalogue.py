"""From prepared data sets to `Records`: the labels of a split without decoding an image, and access to its images.

A data set is prepared once by ``python -m mmreid_jax.prepare``; its records lie in ``DATA_DIR/<dataset>/<version>``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmreid_jax.data.records import Records, View
from mmreid_jax.errors import UserError

DATA_DIR_VARIABLE = "MMREID_DATA"
"""Environment variable that names the folder of prepared data sets."""

JUNK_IDENTITY = -1
"""Identity of boxes that the Market protocol counts neither as right nor as wrong."""

_DATASETS = ("rgbnt201", "rgbnt100", "rgbn300", "msvr310", "market1501_mm")
_COLUMNS = ("identity", "camera", "scene", "file")
_SCAN_BATCH = 512

_RGBNT100_THIRD = {
    "thermal": View("composite", (512, 768)),
    # Parity: HTT crops columns 256 to 768, near-infrared and thermal image together (gives the published 75.7 / 92.6).
    "reference": View("composite", (256, 768)),
}
_RGBN300_THIRD = {
    None: {},
    # Parity: HTT feeds its three-modality model with (R, N, N).
    "reference": {"tir": View("composite", (256, 512))},
}


def datasets() -> tuple[str, ...]:
    """Names of the data sets that can be prepared and loaded."""
    return _DATASETS


def default_data_dir() -> pathlib.Path:
    """The folder of prepared data sets: the environment variable ``MMREID_DATA``, else ``data``."""
    return pathlib.Path(os.environ.get(DATA_DIR_VARIABLE, "data"))


def builder_class(dataset: str) -> Any:
    """The TFDS builder class of a data set; UserError naming the nearest name if there is none."""
    if dataset not in _DATASETS:
        near = difflib.get_close_matches(dataset.lower(), _DATASETS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"there is no data set {dataset!r}{hint} Known: {', '.join(_DATASETS)}")
    return importlib.import_module(f"tfds_builders.{dataset}.{dataset}_dataset_builder").Builder


def splits(dataset: str) -> tuple[str, ...]:
    """Names of the splits of a data set."""
    return tuple(builder_class(dataset).LAYOUT.splits)


def prepared_dir(dataset: str, data_dir: str | os.PathLike[str]) -> pathlib.Path:
    """Where the records of a data set lie once prepared."""
    version = builder_class(dataset).VERSION
    return pathlib.Path(data_dir).expanduser().absolute() / dataset / str(version)


def is_prepared(dataset: str, data_dir: str | os.PathLike[str]) -> bool:
    """Whether the records of a data set are in `data_dir`."""
    return prepared_dir(dataset, data_dir).is_dir()


def source_of(dataset: str, data_dir: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What a prepared data set was made from, None if it is not prepared.

    Returns:
      ``fingerprint`` of the image files, their ``folder``, number ``files``, total ``bytes``, and ``drawn``: None for a
      real data set, else a mapping with the parameters of the drawing.
    """
    return _read_source(prepared_dir(dataset, data_dir)) if is_prepared(dataset, data_dir) else None


def load(
    dataset: str,
    split: str,
    data_dir: str | os.PathLike[str],
    *,
    rgbnt100_third: str = "thermal",
    rgbn300_third: str | None = None,
) -> Records:
    """The records of a split of a prepared data set.

    Junk boxes (identity -1, in Market1501-MM) are left out: the Market protocol counts them neither as right nor as
    wrong, and the IEEE reader drops them too. HTT keeps them, where they are wrong matches. Distractors (identity 0)
    stay.

    Args:
      dataset: one of `datasets`.
      split: ``train``, ``query`` or ``gallery``.
      data_dir: folder of prepared data sets.
      rgbnt100_third: ``thermal``, or ``reference`` for the wider third crop of HTT.
      rgbn300_third: None for two modalities, or ``reference`` for the near-infrared image again as the third, as HTT.

    Raises:
      UserError: unknown name or option, or the data set is not prepared; says which command prepares it.
    """
    shown = views(dataset, rgbnt100_third, rgbn300_third)
    if split not in splits(dataset):
        raise UserError(f"{dataset} has no split {split!r}; it has {', '.join(splits(dataset))}")
    directory = prepared_dir(dataset, data_dir)
    if not is_prepared(dataset, data_dir):
        raise UserError(
            f"{dataset} is not prepared in {directory.parent.parent}; prepare it once: python -m mmreid_jax.prepare "
            f"--dataset {dataset} --manual_dir DIR --data_dir {directory.parent.parent} (DIR holds the images; "
            f"without them run on drawn data: python -m mmreid_jax.synthesize --dataset {dataset} --out DIR)"
        )
    table = _labels(directory, split, tuple(builder_class(dataset).LAYOUT.images))
    rows = np.flatnonzero(table["identity"] != JUNK_IDENTITY)
    source = PreparedImages(str(directory), split, tuple(dict.fromkeys(view.image for view in shown.values())))
    return Records(
        name=f"{dataset}/{split}",
        **{column: table[column][rows] for column in _COLUMNS},
        views=shown,
        source=source,
        rows=rows.astype(np.int64),
    )


@dataclasses.dataclass
class PreparedImages:
    """The encoded images of a split, read from its records on demand.

    Pickles to its three fields; every process opens the records itself.

    Attributes:
      directory: folder of the prepared data set.
      split: name of the split.
      images: names of the stored images to read.
    """

    directory: str
    split: str
    images: tuple[str, ...]

    def __post_init__(self) -> None:
        self._reader: Any = None
        self._reader_process = -1

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def __len__(self) -> int:
        return len(self._open())

    @property
    def drawn(self) -> bool:
        """True when the images were drawn, not taken by cameras."""
        return _read_source(pathlib.Path(self.directory))["drawn"] is not None

    def encoded(self, indices: Sequence[int]) -> list[dict[str, bytes]]:
        """The image files of the records `indices`: one dict {stored image name: bytes} each."""
        return [{image: row[image] for image in self.images} for row in self.rows(indices)]

    def rows(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The records `indices`, images as encoded files."""
        try:
            return self._open().__getitems__([int(index) for index in indices])
        except RuntimeError as error:  # what the record reader raises on a damaged file
            raise _damaged(self.directory, error) from error

    def _open(self) -> Any:
        # An open reader must not be used on both sides of a fork.
        if self._reader is None or self._reader_process != os.getpid():
            self._reader = _data_source(pathlib.Path(self.directory), self.split, self.images)
            self._reader_process = os.getpid()
        return self._reader


def views(dataset: str, rgbnt100_third: str = "thermal", rgbn300_third: str | None = None) -> dict[str, View]:
    """The modalities of a data set and where they are found; the options are those of `load`.

    Raises:
      UserError: unknown name or option.
    """
    if rgbnt100_third not in _RGBNT100_THIRD:
        raise UserError(f"rgbnt100_third is {rgbnt100_third!r}; it must be one of {', '.join(_RGBNT100_THIRD)}")
    if rgbn300_third not in _RGBN300_THIRD:
        raise UserError(f"rgbn300_third is {rgbn300_third!r}; it must be None or 'reference'")
    rgb, nir = View("composite", (0, 256)), View("composite", (256, 512))
    if dataset == "rgbnt100":
        return {"rgb": rgb, "nir": nir, "tir": _RGBNT100_THIRD[rgbnt100_third]}
    if dataset == "rgbn300":
        return {"rgb": rgb, "nir": nir, **_RGBN300_THIRD[rgbn300_third]}
    return {image: View(image) for image in builder_class(dataset).LAYOUT.images}


def _labels(directory: pathlib.Path, split: str, images: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The label columns of all records of a split, from the small table beside the records if it belongs to them."""
    fingerprint = _read_source(directory)["fingerprint"]
    cached = directory / f"labels-{split}.npz"
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), np.load(cached) as table:
        if str(table["fingerprint"]) == fingerprint:
            return {column: table[f"column_{column}"] for column in _COLUMNS}
    table = _scan(PreparedImages(str(directory), split, images))
    # The table is a convenience: prepared data may lie on a disk that cannot be written to.
    with contextlib.suppress(OSError):
        unfinished = cached.with_name(f"{cached.name}.{os.getpid()}")
        with unfinished.open("wb") as stream:
            np.savez_compressed(stream, fingerprint=fingerprint, **{f"column_{name}": table[name] for name in _COLUMNS})
        unfinished.replace(cached)
    return table


def _scan(source: PreparedImages) -> dict[str, Any]:
    count = len(source)
    rows = []
    for start in range(0, count, _SCAN_BATCH):
        for row in source.rows(range(start, min(start + _SCAN_BATCH, count))):
            rows.append((row["identity"], row["camera"], row["scene"], row["file"].decode("utf-8")))
    identity, camera, scene, file = zip(*rows, strict=True)
    numbers = {"identity": identity, "camera": camera, "scene": scene}
    return {name: np.asarray(values, np.int32) for name, values in numbers.items()} | {"file": np.asarray(file)}


def _data_source(directory: pathlib.Path, split: str, images: Sequence[str]) -> Any:
    """TFDS's random access to the records of a split, images left encoded."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(directory)
        missing = [path.name for path in map(pathlib.Path, builder.info.splits[split].filepaths) if not path.is_file()]
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise _damaged(directory, error) from error
    if missing:
        raise _damaged(directory, f"missing {', '.join(missing)}")
    stored = [name for name in builder.info.features if isinstance(builder.info.features[name], tfds.features.Image)]
    return builder.as_data_source(split, decoders={name: tfds.decode.SkipDecoding() for name in stored})


def _read_source(directory: pathlib.Path) -> dict[str, Any]:
    from tfds_builders import common

    try:
        return json.loads((directory / common.SOURCE_FILE).read_text())
    except (OSError, ValueError) as error:
        raise _damaged(directory, error) from error


def _damaged(directory: str | os.PathLike[str], cause: object) -> UserError:
    return UserError(
        f"the prepared data in {directory} are damaged ({cause}); prepare them again: python -m mmreid_jax.prepare "
        "with --force"
    )
