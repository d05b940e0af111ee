"""A plain folder of images as a records table: one's own data, without a data set."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

import mmreid_jax.datasets as datasets
from mmreid_jax.data import images, listing
from mmreid_jax.data.records import Records, View
from mmreid_jax.errors import UserError, printable
from mmreid_jax.paths import path_of

FOLDER_NAMES = {
    "rgb": ("rgb", "vis", "visible", "color", "colour"),
    "nir": ("nir", "ni", "near_infrared"),
    "tir": ("tir", "ti", "th", "t", "thermal", "lwir", "fir"),
}
"""Names of folders by what their images were taken in."""
INFRARED_NAMES = ("infrared", "ir")
"""Of folders of the one infrared modality that a model sees, whichever it is; of several, of near infrared."""
POLICIES = ("skip", "stop")
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """Image files on disk, by modality.

    Attributes:
      folders: stored image name -> folder.
      names: file names, equal in every folder.
    """

    folders: dict[str, Path]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def sizes(self, indices: Sequence[int] | np.ndarray) -> list[tuple[int, ...]]:
        """Bytes in the files of the samples `indices`, without reading them; -1 where a file is gone."""

        def size(path: Path) -> int:
            try:
                return path.stat().st_size
            except OSError:
                return -1

        return [tuple(size(place / self.names[int(i)]) for place in self.folders.values()) for i in indices]

    def encoded(self, indices: Sequence[int]) -> list[dict[str, bytes]]:
        """See `mmreid_jax.data.records.ImageSource`; raises `BrokenImage` where a file cannot be read."""
        return [{key: listing.read_file(place / self.names[i]) for key, place in self.folders.items()} for i in indices]


def open_folder(
    path: str | Path,
    modalities: Sequence[str],
    modality: str | None = None,
    *,
    one: bool = False,
    flag: str = "--modality",
) -> tuple[Records, tuple[str, ...]]:
    """The images of a folder; whether they can be decoded is not looked at (`checked` does).

    Either the images lie in one subfolder per modality (``rgb``, ``nir``, ``tir`` and the names that data sets use, see
    `FOLDER_NAMES`) under the same file names; or in the folder itself, and are then of `modality`, else of what the
    folder's name says (``thermal``, ``my_thermal_photos``). Where it says nothing, a model that sees all modalities at
    once takes them for its first one, and a line of the log says so; a model of one modality at a time has a network
    for each, and cannot tell.

    Args:
      path: the folder.
      modalities: what the model expects, in its order.
      modality: the one to take, by a name of the model's or one of `FOLDER_NAMES`; None: all that there are.
      one: the model sees one modality at a time.
      flag: that names the modality, for messages.

    Returns:
      (table with identity -1, camera 0 and `Records.left_out`, modalities that the folder does not have).

    Raises:
      UserError: there is no such folder or no image in it, the modalities hold different files or are more than the
        model sees, it does not know `modality`, or the modality cannot be told.
    """
    root = path_of(path)
    if not root.is_dir():
        raise UserError(f"there is no folder {printable(root)}; give a folder of images")
    chosen = None if modality is None else _known(modality, modalities)
    folders = _folders(root, modalities, chosen, one, flag)
    listed = {name: listing.list_images(place) for name, place in folders.items()}
    unusable = {
        (folders[name].relative_to(root) / file).as_posix(): why
        for name, each in listed.items()
        for file, why in each.unusable.items()
    }
    names = _common(folders, listed)
    first = next(iter(folders))
    if not names:
        what = f"; {listing.in_words(unusable)}" if unusable else f" ({', '.join(listing.SUFFIXES)})"
        raise UserError(f"{printable(folders[first])} holds no image that can be used{what}")
    # An absent modality points at an image that is there; zeros replace its pixels before the network sees them.
    views = {known: View(known if known in folders else first) for known in modalities}
    table = Records(
        name=printable(root),
        identity=np.full(len(names), -1, np.int32),
        camera=np.zeros(len(names), np.int32),
        scene=np.zeros(len(names), np.int32),
        file=np.array(names),
        views=views,
        source=FolderSource(folders, names),
        rows=np.arange(len(names)),
        left_out=unusable,
    )
    return table, tuple(known for known in modalities if known not in folders)


def checked(records: Records, broken: str = "skip", threads: int = 1) -> Records:
    """The table of the images of a folder without those that cannot be decoded, which `Records.left_out` then names.

    Every image is decoded once.

    Args:
      records: of `open_folder`.
      broken: ``skip`` leaves them out; ``stop`` refuses them, and whatever else `Records.left_out` names.
      threads: that decode.

    Raises:
      UserError: none can be decoded, or not all can and the policy is ``stop``.
    """
    bad = images.broken_rows(records, threads=threads)
    left_out = {**records.left_out, **{str(records.file[row]): why for row, why in bad.items()}}
    if left_out and broken == "stop":
        raise UserError(
            f"{len(left_out)} files in {records.name} cannot be used: {listing.in_words(left_out)}; get them again, or "
            "leave them out with --broken skip"
        )
    if len(bad) == len(records):
        raise UserError(f"no image in {records.name} can be used: {listing.in_words(left_out)}")
    kept = np.setdiff1d(np.arange(len(records)), list(bad)) if bad else np.arange(len(records))
    return dataclasses.replace(records.select(kept), left_out=left_out)


def copies(query: Records, gallery: Records) -> dict[int, np.ndarray]:
    """Query -> the gallery rows with the same images, whatever they are called: the bytes of the files decide.

    Args:
      query: any table.
      gallery: of `open_folder`.
    """
    source = gallery.source
    assert isinstance(source, FolderSource)
    wanted: dict[tuple[int, ...], dict[str, list[int]]] = {}
    for row in range(len(query)):
        content = query.encoded([row])[0].values()
        wanted.setdefault(tuple(map(len, content)), {}).setdefault(_digest(content), []).append(row)
    found: dict[int, list[int]] = {}
    for row, sizes in enumerate(source.sizes(gallery.rows)):
        # Few have the size of a query; only these are read.
        if sizes in wanted:
            for each in wanted[sizes].get(_digest(gallery.encoded([row])[0].values()), []):
                found.setdefault(each, []).append(row)
    return {row: np.array(rows) for row, rows in found.items()}


def _digest(content: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(each).digest() for each in content)).hexdigest()


def _known(named: str, modalities: Sequence[str]) -> str:
    """The model's modality of that name."""
    found = _meaning(named.lower(), modalities)
    if named in modalities or found in modalities:
        return named if named in modalities else str(found)
    raise UserError(f"the model does not know the modality {named!r}; it sees {', '.join(modalities)}")


def _meaning(name: str, modalities: Sequence[str]) -> str | None:
    """The modality that a folder's name in small letters stands for, whether the model knows it or not; None: none."""
    if name in modalities:
        return name
    if name in INFRARED_NAMES:
        infrared = [known for known in modalities if known in ("nir", "tir")]
        return infrared[0] if infrared else "nir"
    return next((known for known, names in FOLDER_NAMES.items() if name in names), None)


def _folders(root: Path, modalities: Sequence[str], chosen: str | None, one: bool, flag: str) -> dict[str, Path]:
    """Modality -> folder, in the order of the model."""
    found: dict[str, Path] = {}
    for entry in sorted(root.iterdir()):
        meaning = _meaning(entry.name.lower(), modalities)
        if meaning is not None and meaning in modalities and chosen in (None, meaning) and entry.is_dir():
            if meaning in found:
                raise UserError(
                    f"{printable(root)} holds {found[meaning].name} and {entry.name}, both of modality {meaning}; give "
                    "one of its folders"
                )
            found[meaning] = entry
    if one and len(found) > 1:
        raise UserError(
            f"{printable(root)} holds {' and '.join(found)}, but this model sees one modality at a time; choose one "
            f"with {flag}"
        )
    if found:
        return {known: found[known] for known in modalities if known in found}
    if chosen:
        return {chosen: root}
    # Of its words each may say something.
    words = [word for word in re.split(r"[^a-z]+", root.resolve().name.lower()) if word]
    named = {meaning for word in words if len(word) > 1 and (meaning := _meaning(word, modalities))}
    named |= {meaning} if (meaning := _meaning(root.resolve().name.lower(), modalities)) else set()
    choices = ", ".join(modalities)
    if len(named) == 1:
        (meaning,) = named
        if meaning in modalities:
            return {meaning: root}
        raise UserError(
            f"by its name {printable(root)} holds {meaning} images, but the model sees {choices}; name the one to take "
            f"them for with {flag}"
        )
    if one and len(modalities) > 1:
        raise UserError(
            f"nothing says which modality the images in {printable(root)} are of, and this model sees {choices} by "
            f"networks of their own; name it with {flag}, or by the folder's name"
        )
    if len(modalities) > 1:
        _log.warning("%s: taken for %s images, as nothing says what they are; %s does", root, modalities[0], flag)
    return {modalities[0]: root}


def _common(folders: Mapping[str, Path], listed: Mapping[str, listing.Listing]) -> tuple[str, ...]:
    """The names that all folders have; `UserError` where one has others, but for those that cannot be used."""
    everything = sorted(set().union(*(each.files for each in listed.values())))
    useless = set().union(*(each.unusable for each in listed.values()))
    first, *others = listed
    for other in others:
        differing = sorted((set(listed[first].files) ^ set(listed[other].files)) - useless)
        if differing:
            raise UserError(
                f"{printable(folders[first])} and {printable(folders[other])} must hold the same file names, one per "
                f"sample; {len(differing)} differ, such as {printable(differing[0])}"
            )
    return tuple(name for name in everything if all(name in each.files for each in listed.values()))


def with_labels(table: Records, dataset: str) -> Records | None:
    """The table with identity, camera and scene read off its file names as `dataset` writes them; None where one fails.

    Names of a data set of one's own, ``own:NAME``, say nothing by themselves; it need not be there.

    Raises:
      UserError: there is no such data set.
    """
    if datasets.is_own(dataset):
        return None
    parse = datasets.get(dataset).folders.labels
    try:
        labels = [parse(Path(name).stem) for name in table.file.tolist()]
    except ValueError:
        return None
    identity, camera, scene = np.array(labels, np.int32).T
    return dataclasses.replace(table, identity=identity, camera=camera, scene=scene)
