"""From prepared data sets to `Records`: the labels of a split without decoding an image, and access to its images.

A data set is prepared once by ``python -m mmreid_jax prepare``; its records lie in ``DATA_DIR/<dataset>/<version>``.
The name of a data set with several splits of its identities ends in one of them, as in ``regdb/trial_3``; without it
the first is meant.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import mmreid_jax.datasets as datasets
from mmreid_jax import owned
from mmreid_jax.data import aligned_captions, captions
from mmreid_jax.data.records import Records
from mmreid_jax.datasets.disk import SOURCE_FILE, SingleFolders
from mmreid_jax.datasets.own import description
from mmreid_jax.errors import UserError
from mmreid_jax.paths import path_of, read_json
from mmreid_jax.retrieval.protocols import JUNK_IDENTITY

_COLUMNS = ("identity", "camera", "scene", "file")
_SINGLE_COLUMNS = (*_COLUMNS, "label", "modality")
_TEXT_COLUMNS = ("file", "modality")
_SCAN_BATCH = 512
CARD, SHEET, IDENTITIES = "card.md", "contact_sheet.png", "identities.csv"
"""What lies beside the records of a data set of one's own, with its description."""
# With the number of a process where one died while it wrote.
_PREPARED = re.compile(
    rf"{re.escape(SOURCE_FILE)}|dataset_info\.json|features\.json|[\w.-]*\.array_record-\d+-of-\d+|"
    rf"labels-\w+\.npz(\.\d+)?|text-\w+\.json(\.\d+)?|own\.json|"
    rf"{'|'.join(map(re.escape, (CARD, SHEET, IDENTITIES)))}"
)


def prepared_dir(dataset: str, data_dir: str | os.PathLike[str]) -> pathlib.Path:
    """Where the records of a data set lie once prepared."""
    if description.is_own(dataset):
        return description.folder_of(dataset, data_dir)
    described = datasets.get(dataset)
    return path_of(data_dir).absolute() / dataset.partition("/")[0] / described.part / described.version


def is_prepared(dataset: str, data_dir: str | os.PathLike[str]) -> bool:
    """Whether the records of a data set are in `data_dir`."""
    return prepared_dir(dataset, data_dir).is_dir()


def source_of(dataset: str, data_dir: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What a prepared data set was made from, None if it is not prepared.

    Returns:
      ``fingerprint`` of the image files, their ``folder``, number ``files``, total ``bytes``, and ``drawn``: None for a
      real data set, else a mapping with the parameters of the drawing. Where the records hold texts, ``text``: their
      ``captioner`` and ``fingerprint``.
    """
    return _read_source(prepared_dir(dataset, data_dir)) if is_prepared(dataset, data_dir) else None


def files_of(directory: pathlib.Path) -> list[str] | None:
    """The files that a folder of prepared data has by preparation; None where it is no such folder."""
    if not any((directory / name).is_file() for name in (SOURCE_FILE, "dataset_info.json")):
        return None
    return [name for name in owned.files_of(directory) if _PREPARED.fullmatch(name)]


def load(
    dataset: str,
    split: str,
    data_dir: str | os.PathLike[str],
    *,
    composite: str = "",
    text: captions.TextOptions | None = None,
) -> Records:
    """The records of a split of a prepared data set.

    Of a visible-infrared data set the training table holds single images of both modalities (columns ``label`` and
    ``modality``); query and gallery hold all test images of one modality each, the only one of their views.

    Junk boxes (identity -1, in Market1501-MM) are left out: the Market protocol counts them neither as right nor as
    wrong, and the IEEE reader drops them too. HTT keeps them, where they are wrong matches. Distractors (identity 0)
    stay.

    Args:
      dataset: a name of `mmreid_jax.datasets.get`.
      split: ``train``, ``query`` or ``gallery``.
      data_dir: folder of prepared data sets.
      composite: how images that lie side by side are cut, see `Dataset.composites`; "" for the usual way.
      text: which captions to read, None for none; see `Records.captions`. Which of its identity's visible captions an
        infrared test image is given is drawn here, for all images of the split in their order. Of aligned images there
        is nothing to draw.

    Raises:
      UserError: unknown name or option, or the data set is not prepared, or not with these texts; says which command
        prepares it.
    """
    described = datasets.get(dataset, data_dir)
    views_of = described.views(composite)
    if split not in described.splits:
        raise UserError(f"{dataset} has no split {split!r}; it has {', '.join(described.splits)}")
    folders = described.folders
    single = isinstance(folders, SingleFolders)
    if isinstance(folders, SingleFolders):
        views_of = {modality: views_of[modality] for modality in folders.modalities_of(split)}
    directory = prepared_dir(dataset, data_dir)
    if not is_prepared(dataset, data_dir):
        folder = path_of(data_dir).absolute()
        raise UserError(
            f"{dataset} is not prepared in {folder}; prepare it once: python -m mmreid_jax prepare "
            f"--dataset {dataset} --manual_dir DIR --data_dir {folder} (DIR holds the images; "
            f"without them run on drawn data: python -m mmreid_jax synthesize --dataset {dataset} --out DIR)"
        )
    columns = _SINGLE_COLUMNS if single else _COLUMNS
    table = _labels(directory, split, tuple(folders.images), columns)
    # Test images have no class index, and one modality, which the views name.
    shown_columns = columns if split == "train" else _COLUMNS
    captions_of = None
    if text:
        _check_captioner(dataset, directory, text.captioner)
        texts = _texts(directory, split, tuple(folders.images), single)
        captions_of = (
            _captions(dataset, split, texts, next(iter(views_of)), text)
            if single
            else {name: np.array(texts[aligned_captions.feature(name)], object) for name in views_of}
        )
    rows = np.flatnonzero(table["identity"] != JUNK_IDENTITY)
    source = PreparedImages(str(directory), split, tuple(dict.fromkeys(view.image for view in views_of.values())))
    chosen: dict[str, Any] = {column: table[column][rows] for column in shown_columns}
    return Records(
        name=f"{dataset}/{split}",
        **chosen,
        views=views_of,
        source=source,
        rows=rows.astype(np.int64),
        captions=captions_of and {name: texts[rows] for name, texts in captions_of.items()},
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

    def stamp(self) -> str:
        """See `mmreid_jax.data.image_store.Stamped`: names, sizes, times and places of the files of the records."""
        states = [
            (path.name, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
            for path in sorted(pathlib.Path(self.directory).iterdir())
            if "array_record" in path.name
            for state in (path.stat(),)
        ]
        return repr((self.directory, self.split, self.images, states))

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


def _labels(
    directory: pathlib.Path, split: str, images: tuple[str, ...], columns: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """The label columns of all records of a split, from the small table beside the records if it belongs to them."""
    fingerprint = _read_source(directory)["fingerprint"]
    cached = directory / f"labels-{split}.npz"
    damages = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
    with contextlib.suppress(*damages), np.load(cached) as table:
        if str(table["fingerprint"]) == fingerprint:
            return {column: table[f"column_{column}"] for column in columns}
    table = _scan(PreparedImages(str(directory), split, images), columns)
    # The table is a convenience: prepared data may lie on a disk that cannot be written to.
    with contextlib.suppress(OSError):
        unfinished = cached.with_name(f"{cached.name}.{os.getpid()}")
        with unfinished.open("wb") as stream:
            np.savez_compressed(stream, fingerprint=fingerprint, **{f"column_{name}": table[name] for name in columns})
        unfinished.replace(cached)
    return table


def _check_captioner(dataset: str, directory: pathlib.Path, captioner: str) -> None:
    """Raises a `UserError` unless the records hold the texts of a captioner."""
    prepared = _read_source(directory).get("text")
    if prepared is None or prepared["captioner"] != captioner:
        raise UserError(
            f"{dataset} is prepared in {directory} without the texts of captioner {captioner!r}"
            + (f", but with those of {prepared['captioner']}" if prepared else "")
            + "; put them beside the images (see the README of the builder), or draw the data once more if they are "
            f"drawn, and prepare again: python -m mmreid_jax prepare --dataset {dataset} --manual_dir DIR "
            f"--captioner {captioner} --force"
        )


def _captions(
    dataset: str, split: str, table: Mapping[str, list[Any]], modality: str, options: captions.TextOptions
) -> dict[str, np.ndarray] | None:
    """The columns of `Records.captions` of single images, from their texts; `modality` is that of a test split."""
    if split != "train":
        if modality == captions.VISIBLE:
            return None
        choice = captions.picks(
            [len(options_of_row) for options_of_row in table["visible"]], options.draw, options.seed
        )
        drawn = [options_of_row[pick] for options_of_row, pick in zip(table["visible"], choice.tolist(), strict=True)]
        return {captions.VISIBLE: np.array(drawn, object), modality: np.array(table["caption"], object)}
    if options.rephrased and (lacking := sum(not text for text in table["rephrased"])):
        raise UserError(
            f"{lacking} of {len(table['rephrased'])} training captions of {dataset} by {options.captioner} have no "
            f"rephrasing, but config.data.rephrased is {options.rephrased}; set it to 0, or add the rephrasings "
            "(caption_llm_dict_*.json, for SYSU-MM01 train_llm_text_*.npy) and prepare again with --force"
        )
    return {name: np.array(table[name], object) for name in ("caption", "rephrased")}


def _texts(directory: pathlib.Path, split: str, images: tuple[str, ...], single: bool) -> dict[str, list[Any]]:
    """The texts of all records, from the small file beside them if it fits.

    Of single images ``caption``, ``rephrased`` and ``visible``, of aligned ones a feature for each modality.
    """
    source = _read_source(directory)
    fingerprint = [source["fingerprint"], source["text"]["fingerprint"]]
    cached = directory / f"text-{split}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        stored = read_json(cached)
        if stored["fingerprint"] == fingerprint:
            groups_of_captions = stored["visible"]
            return {**stored["columns"], "visible": [groups_of_captions[group] for group in stored["visible_of"]]}
    names = ("caption", "rephrased") if single else tuple(map(aligned_captions.feature, aligned_captions.KINDS))
    visible_captions = ("visible_captions",) if single else ()
    rows = _rows(PreparedImages(str(directory), split, images), (*names, *visible_captions))
    columns = {name: [row[i].decode("utf-8") for row in rows] for i, name in enumerate(names)}
    visible = [row[len(names)] if single else () for row in rows]
    # All images of an identity share their visible captions.
    listed = [tuple(text.decode("utf-8") for text in groups_of_captions) for groups_of_captions in visible]
    groups = {groups_of_captions: group for group, groups_of_captions in enumerate(dict.fromkeys(listed))}
    content = {
        "fingerprint": fingerprint,
        "columns": columns,
        "visible": list(groups),
        "visible_of": [groups[groups_of_captions] for groups_of_captions in listed],
    }
    with contextlib.suppress(OSError):
        unfinished = cached.with_name(f"{cached.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(content), encoding="utf-8")
        unfinished.replace(cached)
    return {**columns, "visible": listed}


def _rows(source: PreparedImages, columns: Sequence[str]) -> list[list[Any]]:
    """The values of some columns of all records, [N][columns]."""
    count = len(source)
    return [
        [row[column] for column in columns]
        for start in range(0, count, _SCAN_BATCH)
        for row in source.rows(range(start, min(start + _SCAN_BATCH, count)))
    ]


def _scan(source: PreparedImages, columns: tuple[str, ...]) -> dict[str, Any]:
    columns_of_rows = dict(zip(columns, zip(*_rows(source, columns), strict=True), strict=True))
    return {
        name: np.array([text.decode("utf-8") for text in values])
        if name in _TEXT_COLUMNS
        else np.asarray(values, np.int32)
        for name, values in columns_of_rows.items()
    }


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
    try:
        source = read_json(directory / SOURCE_FILE)
        text = source.get("text") if isinstance(source, dict) else None
        if not isinstance(source, dict) or not {"fingerprint", "folder", "files", "bytes", "drawn"} <= source.keys():
            raise ValueError(f"{SOURCE_FILE} does not say what they were made from")
        if text is not None and not (isinstance(text, dict) and {"captioner", "fingerprint"} <= text.keys()):
            raise ValueError(f"{SOURCE_FILE} does not say whose texts they hold")
    except (OSError, ValueError) as error:
        raise _damaged(directory, error) from error
    return source


def _damaged(directory: str | os.PathLike[str], cause: object) -> UserError:
    return UserError(
        f"the prepared data in {directory} are damaged ({cause}); prepare them again: python -m mmreid_jax prepare "
        "with --force"
    )
