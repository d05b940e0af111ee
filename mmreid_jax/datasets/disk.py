"""A data set on disk: the description of its folders, and the listing of its samples.

A data set whose samples are aligned images of several modalities is described by `AlignedFolders`; everything else
(finding the folders, pairing the modalities, reading labels off file names, writing the records) follows from it.
A data set whose samples are single images of one modality each (visible-infrared re-identification) is described by
`SingleFolders`: what its folder must hold, and a function that lists the images of a split.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from mmreid_jax.data import aligned_captions, captions, listing
from mmreid_jax.errors import UserError, printable
from mmreid_jax.paths import EMPTY, file_problem, path_of, read_json, reason_of

SOURCE_FILE = "source.json"
"""Name of the file beside the prepared records that says which image files they were made from."""

DRAWN_FILE = "drawn.json"
"""Name of the marker in the folder of a drawn data set; it holds the parameters of the drawing."""

_IMAGE_SUFFIXES = (".jpg", ".jpeg")


class NameLabels(NamedTuple):
    """What a file name says of a sample: identity as written, camera counted from 0, scene (or time) id."""

    identity: int
    camera: int
    scene: int


@dataclasses.dataclass(frozen=True)
class Sample:
    """One sample on disk.

    Attributes:
      file: base name of its images.
      labels: what the name says.
      images: stored image name -> path.
      label: class index that the data set's lists give it, -1 for none.
      modality: modality of a single image, "" where all are there.
      text: what is said of it, None where there is no text.
      texts: modality -> caption of its image in it, of aligned images; empty where there is no text.
    """

    file: str
    labels: NameLabels
    images: Mapping[str, pathlib.Path]
    label: int = -1
    modality: str = ""
    text: captions.ImageText | None = None
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)


class _Described:
    """What is said about every data set, whatever its folders."""

    name: str
    source: str

    jpeg_only: ClassVar[bool] = True
    """Whether it is distributed as JPEG files alone."""
    usual_captioners: ClassVar[tuple[str, ...]] = (captions.CAPTIONER,)
    """Whose texts go into the records where nobody is named."""
    text_folder: ClassVar[str] = captions.FOLDER
    """Where texts lie below the root."""
    text_files: ClassVar[str] = "the folders {captioner}_RGB and {captioner}_IR"
    """What a captioner's texts are, for messages."""

    @property
    def tree(self) -> str:
        """The expected folders in one line."""
        raise NotImplementedError

    @property
    def stated(self) -> str:
        """What is said of the samples beside the names of their files, for the fingerprint of the data set."""
        return ""

    def captioners(self, root: pathlib.Path) -> tuple[str, ...]:
        """Whose texts about the images there are in the folder of the data set."""
        del root
        return ()

    def text_fingerprint(self, root: pathlib.Path, captioner: str) -> str:
        """A number that changes when any text of a captioner changes."""
        raise NotImplementedError

    def with_texts(self, root: pathlib.Path, captioner: str, split: str, samples: Sequence[Sample]) -> list[Sample]:
        """The samples of a split with what a captioner says of them."""
        raise NotImplementedError

    def check_texts(self, root: pathlib.Path, samples: Mapping[str, Sequence[Sample]]) -> list[str]:
        """How texts that may be incomplete fit the samples of all splits, in lines."""
        del root, samples
        return []

    @property
    def instructions(self) -> str:
        """How to get the data and where to put them, in one sentence."""
        return f"{self.source} Unpack so that the tree is {self.tree}."

    @property
    def without_data(self) -> str:
        """How to go on without the data, in one sentence."""
        return (
            f"Without the data, run on drawn data: python -m mmreid_jax synthesize --dataset {self.name} --out DIR, "
            "or --config.data.drawn=True."
        )


@dataclasses.dataclass(frozen=True)
class AlignedFolders(_Described):
    """Where a data set of aligned images keeps them and what their names mean.

    Attributes:
      name: name of the data set in this library.
      folder: name of the data set's folder as distributed.
      splits: split -> folder.
      images: stored image name -> folder of that image inside a split, "" when the files lie in the split folder.
      labels: base name without suffix -> labels; raises ValueError when the name does not have the form `file_form`.
      file_form: the form of the names, for messages.
      source: whom to ask for the data.
      inner: a folder between `folder` and the splits that some copies have and others lack, "" for none.
      folder_per_identity: True when a split holds one folder per identity, and these hold the image folders.
      width: width in pixels of side-by-side images, None for images of one modality.
      captioned: whether captions may lie beside the splits, see `aligned_captions`.
    """

    name: str
    folder: str
    splits: Mapping[str, str]
    images: Mapping[str, str]
    labels: Callable[[str], NameLabels]
    file_form: str
    source: str
    inner: str = ""
    folder_per_identity: bool = False
    width: int | None = None
    captioned: bool = False

    usual_captioners: ClassVar[tuple[str, ...]] = (aligned_captions.CAPTIONER,)
    text_folder: ClassVar[str] = aligned_captions.FOLDER
    text_files: ClassVar[str] = f"train_RGB.json and the others of captioner {aligned_captions.CAPTIONER}"

    @property
    def tree(self) -> str:
        """The expected folders in one line, as in ``RGBNT201/{train_171,test}/{RGB,NI,TI}/PPPPPP_camC_T_FF.jpg``."""
        image_folders = [folder for folder in self.images.values() if folder]
        parts = [
            self.folder,
            self.inner,
            _alternatives(list(dict.fromkeys(self.splits.values()))),
            "<identity>" if self.folder_per_identity else "",
            _alternatives(image_folders) if image_folders else "",
            self.file_form,
        ]
        return "/".join(part for part in parts if part)

    @property
    def split_folders(self) -> dict[str, str]:
        """Split -> its folder below `folder`."""
        return {split: "/".join(part for part in (self.inner, name) if part) for split, name in self.splits.items()}

    def captioners(self, root: pathlib.Path) -> tuple[str, ...]:
        """Whose texts lie beside the splits."""
        return aligned_captions.captioners(root) if self.captioned else ()

    def text_fingerprint(self, root: pathlib.Path, captioner: str) -> str:
        """See `aligned_captions.fingerprint`; there is one captioner."""
        del captioner
        return aligned_captions.fingerprint(root)

    def with_texts(self, root: pathlib.Path, captioner: str, split: str, samples: Sequence[Sample]) -> list[Sample]:
        """The samples of a split with their captions; errors are those of `aligned_captions.read`."""
        del captioner
        texts = aligned_captions.read(root, split, [sample.file for sample in samples])
        return [dataclasses.replace(sample, texts=each) for sample, each in zip(samples, texts, strict=True)]

    def check_texts(self, root: pathlib.Path, samples: Mapping[str, Sequence[Sample]]) -> list[str]:
        """See `aligned_captions.check`."""
        files = {split: [sample.file for sample in listed] for split, listed in samples.items()}
        return aligned_captions.check(root, files)

    def missing(self, root: pathlib.Path) -> list[pathlib.Path]:
        """The split and modality folders that `root` lacks; below identity folders nothing is looked up."""
        subfolders = [""] if self.folder_per_identity else list(self.images.values())
        wanted = [root / split / sub for split in self.splits.values() for sub in subfolders]
        return [folder for folder in dict.fromkeys(wanted) if not folder.is_dir()]

    def samples(self, root: pathlib.Path, split: str) -> list[Sample]:
        """The samples of a split, sorted by file name; errors are those of `list_samples`."""
        folder = root / self.splits[split]
        stored = {image: _image_files(self, folder, sub) for image, sub in self.images.items()}
        everything = sorted(set().union(*stored.values()), key=lambda key: (key[1], key[0]))
        if not everything:
            raise UserError(
                f"{self.name}: no images in {folder} with the suffix {' or '.join(_IMAGE_SUFFIXES)}; expected tree: "
                f"{self.tree}. {self.source}"
            )
        for image, files in stored.items():
            alone = [str(next(s[key] for s in stored.values() if key in s)) for key in everything if key not in files]
            if alone:
                raise UserError(
                    f"{self.name}: {len(alone)} of {len(everything)} samples in {folder} have no {image} image "
                    f"(folder {self.images[image]}) beside {few(alone)}; complete the copy or remove these files"
                )
        return [
            Sample(name, labels, {image: files[parent, name] for image, files in stored.items()})
            for (parent, name), labels in zip(everything, _read_labels(self, folder, everything), strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class SingleFolders(_Described):
    """A data set of visible and infrared images that belong together by identity alone.

    Attributes:
      name: name of the data set in this library, with the split of its identities if it has several.
      folder: name of the data set's folder as distributed.
      expected: the folders and names below `folder`, in one line.
      source: whom to ask for the data.
      required: folders and lists below the root that must be there.
      list_split: (these folders, root, split) -> the samples of the split in the order of the record.
      labels: base name without suffix -> labels; raises ValueError where the base name alone does not say them.
      query: modality of the images in the split ``query``.
      gallery: modality of the images in the split ``gallery``.
    """

    name: str
    folder: str
    expected: str
    source: str
    required: tuple[str, ...]
    list_split: Callable[[SingleFolders, pathlib.Path, str], list[Sample]]
    labels: Callable[[str], NameLabels]
    query: str
    gallery: str

    jpeg_only: ClassVar[bool] = False
    inner: ClassVar[str] = ""
    width: ClassVar[int | None] = None
    images: ClassVar[Mapping[str, str]] = {"image": ""}
    splits: ClassVar[Mapping[str, str]] = {"train": "", "query": "", "gallery": ""}

    @property
    def tree(self) -> str:
        """The expected folders in one line."""
        return f"{self.folder}/{self.expected}"

    @property
    def modalities(self) -> tuple[str, str]:
        """Names of the two modalities, the visible one first."""
        return ("rgb", self.gallery if self.query == "rgb" else self.query)

    def modalities_of(self, split: str) -> tuple[str, ...]:
        """Names of the modalities in a split."""
        return {"query": (self.query,), "gallery": (self.gallery,)}.get(split, self.modalities)

    def captioners(self, root: pathlib.Path) -> tuple[str, ...]:
        """Whose texts lie beside the images."""
        return captions.captioners(root)

    def text_fingerprint(self, root: pathlib.Path, captioner: str) -> str:
        """See `captions.fingerprint`."""
        return captions.fingerprint(root, captioner, self.modalities)

    def with_texts(self, root: pathlib.Path, captioner: str, split: str, samples: Sequence[Sample]) -> list[Sample]:
        """The samples of a split with what a captioner says of them; errors are those of `captions.read`."""
        images = [captions.Image(sample.file, sample.labels.identity, sample.modality) for sample in samples]
        texts = captions.read(root, captioner, split, images)
        return [dataclasses.replace(sample, text=text) for sample, text in zip(samples, texts, strict=True)]

    def missing(self, root: pathlib.Path) -> list[pathlib.Path]:
        """The required folders and lists that `root` lacks."""
        return [root / part for part in self.required if not (root / part).exists()]

    def samples(self, root: pathlib.Path, split: str) -> list[Sample]:
        """The samples of a split; errors are those of `list_samples`."""
        listed = self.list_split(self, root, split)
        if not listed:
            raise UserError(f"{self.name}: no images for {split} in {root}; expected tree: {self.tree}. {self.source}")
        return listed


Folders = AlignedFolders | SingleFolders


def match_name(pattern: str, stem: str) -> tuple[str, ...]:
    """The groups of `pattern` in the whole of a base name without suffix; ValueError if it does not match."""
    match = re.fullmatch(pattern, stem, re.ASCII)
    if not match:
        raise ValueError(f"{stem!r} does not match {pattern!r}")
    return match.groups()


def few(names: Sequence[str], limit: int = 5) -> str:
    """The first `limit` of `names`, and how many more there are."""
    listed = ", ".join(names[:limit])
    return listed if len(names) <= limit else f"{listed} and {len(names) - limit} more"


def read_lines(path: pathlib.Path) -> list[str]:
    """The lines of a list that are not empty; UserError naming the file if it cannot be read."""
    if (problem := file_problem(path)) and problem != EMPTY:
        raise UserError(f"cannot read the list {path} ({problem}); get it again")
    try:
        # Windows puts a mark of its own before the first line.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list {path} ({error}); get it again") from None
    return [line.strip() for line in lines if line.strip()]


def read_identities(path: pathlib.Path) -> list[int]:
    """The identities in the first line of a list such as ``1,2,4``, ascending; other lines are not read.

    Raises:
      UserError: the list is empty, cannot be read, or holds something else.
    """
    lines = read_lines(path)
    numbers = [text.strip() for text in lines[0].split(",") if text.strip()] if lines else []
    if not numbers or not all(text.isdecimal() for text in numbers):
        raise UserError(f"{path} must begin with a line of comma-separated identities, as in 1,2,4; get it again")
    return sorted({int(text) for text in numbers})


def listed_images(folders: Folders, root: pathlib.Path, path: str) -> list[tuple[str, int]]:
    """(file below the root, label) of every line ``folder/identity/name.jpg label`` of a list, in its order.

    Raises:
      UserError: the list is empty, a line has another form, or files that it names are not there.
    """
    rows = []
    for number, line in enumerate(read_lines(root / path), start=1):
        file, _, label = line.rpartition(" ")
        if not file or not label.isdecimal():
            raise UserError(
                f"{folders.name}: entry {number} of {root / path} is {line!r}, not a file and a label; get it again"
            )
        rows.append((file.strip().replace("\\", "/"), int(label)))
    if not rows:
        raise UserError(f"{folders.name}: {root / path} is empty; get it again")
    there = {folder: set(names_in(root / folder)) for folder in {os.path.dirname(file) for file, _ in rows}}
    absent = [file for file, _ in rows if os.path.basename(file) not in there[os.path.dirname(file)]]
    if absent:
        raise UserError(
            f"{folders.name}: {len(absent)} of {len(rows)} files of the list {path} are not in {root}: {few(absent)}; "
            "complete the copy"
        )
    return rows


def check_class_indices(folders: Folders, root: pathlib.Path, samples: Sequence[Sample]) -> None:
    """Raises UserError unless every identity has one class index, the same in both modalities, of 0 ... C - 1."""
    indices: dict[int, set[int]] = {}
    for sample in samples:
        indices.setdefault(sample.labels.identity, set()).add(sample.label)
    wrong = [
        f"identity {identity} has {sorted(of_identity)}"
        for identity, of_identity in indices.items()
        if len(of_identity) > 1
    ]
    used = sorted(set().union(*indices.values()))
    if not wrong and used != list(range(len(indices))):
        wrong = [f"{len(indices)} identities share {len(used)} class indices from {used[0]} to {used[-1]}"]
    if wrong:
        raise UserError(
            f"{folders.name}: the training lists in {root / 'idx'} disagree on the class of an identity: {few(wrong)}; "
            "get them again"
        )
    alone = [m for m in {s.modality for s in samples} if len({s.label for s in samples if s.modality == m}) < len(used)]
    if alone:
        raise UserError(
            f"{folders.name}: some training identities in {root / 'idx'} have no {' or '.join(sorted(alone))} image; "
            "get the lists again"
        )


def names_in(folder: pathlib.Path) -> list[str]:
    """Sorted names in a folder, none if there is no such folder; hidden files are left out."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def images_in(folder: pathlib.Path) -> list[str]:
    """Sorted names of the JPEG files in a folder, none if there is no such folder."""
    return [name for name in names_in(folder) if name.lower().endswith(_IMAGE_SUFFIXES)]


def find_root(folders: Folders, manual_dir: str | os.PathLike[str]) -> pathlib.Path:
    """The folder that holds the split folders of a data set.

    Args:
      folders: of the data set.
      manual_dir: the data set's folder, or its parent.

    Raises:
      UserError: a required folder or list is missing; names them all.
    """
    given = path_of(manual_dir)
    candidates = [given / folders.folder / folders.inner, given / folders.folder, given / folders.inner, given]
    with _readable(folders.name):
        missing = {candidate: folders.missing(candidate) for candidate in dict.fromkeys(candidates)}
    root = min(missing, key=lambda candidate: len(missing[candidate]))
    if not missing[root]:
        return root
    absent = [str(folder.relative_to(given)) for folder in missing[root]]
    state = few(absent, limit=9) if given.is_dir() else f"all of it ({given} is not a folder)"
    raise UserError(
        f"{folders.name}: missing under {given.absolute()}: {state}. Expected tree: {folders.tree}. "
        f"{folders.source} {folders.without_data}"
    )


def list_samples(folders: Folders, root: pathlib.Path, split: str) -> list[Sample]:
    """The samples of a split, in the order of the record.

    Raises:
      UserError: the split is empty, an image lacks its counterpart in another modality, a name or a line of a list has
        the wrong form, or a file that a list names is not there.
    """
    with _readable(folders.name):
        return folders.samples(root, split)


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    """Says in a sentence what folder of a data set cannot be read."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{name}: {printable(error.filename)} cannot be read ({reason_of(error)})") from None


def other_images(folders: Folders, samples: Sequence[Sample]) -> dict[str, str]:
    """Images beside those of `samples` that a data set does not know: path -> why they are no part of it."""
    known = {path for sample in samples for path in sample.images.values()}
    others: dict[str, str] = {}
    for folder in sorted({path.parent for path in known}):
        for name in os.listdir(folder):
            suffix = os.path.splitext(name)[1].lower()
            if folder / name in known or suffix not in (*listing.SUFFIXES, *listing.UNREAD):
                continue
            if suffix not in _IMAGE_SUFFIXES and folders.jpeg_only:
                others[str(folder / name)] = f"{folders.name} holds JPEG files, not {suffix}"
            elif name.startswith("."):
                others[str(folder / name)] = "a hidden file"
    return others


def captioner_of(folders: Folders, root: pathlib.Path, wanted: str = "") -> str:
    """The captioner whose texts belong into the records of a data set, "" for none.

    Args:
      folders: of the data set.
      root: its folder.
      wanted: name of the captioner; "" for the usual one if its texts are there.

    Raises:
      UserError: the wanted one has left no texts.
    """
    there = folders.captioners(root)
    if not wanted:
        return next((name for name in folders.usual_captioners if name in there), "")
    if wanted not in there:
        has = f"it has texts of {', '.join(there)}" if there else "it has no texts at all"
        raise UserError(
            f"{folders.name}: there are no texts of captioner {wanted!r} in {root / folders.text_folder} ({has}); put "
            f"{folders.text_files.format(captioner=wanted)} there, or choose another captioner"
        )
    return wanted


def describe_source(
    folders: Folders, root: pathlib.Path, samples: Sequence[Sample], captioner: str = ""
) -> dict[str, Any]:
    """Which files a data set is made of.

    The fingerprint changes when a file is added, removed, renamed or changes its size, when the lists of a data set of
    single images change, and when the parameters of a drawn data set change; it does not change when the folder moves.

    Returns:
      ``fingerprint``, ``folder``, ``files`` (their number), ``bytes`` and ``drawn`` (the drawing's parameters or None);
      with a captioner also ``text``: its name and a fingerprint of its texts. What is written beside the records also
      has ``left_out`` where images were left out: their names with the reasons; and ``text_checks``, the lines of
      `check_texts`.
    """
    paths = {path for sample in samples for path in sample.images.values()}
    sizes = {path.relative_to(root).as_posix(): path.stat().st_size for path in paths}
    digest = hashlib.sha256()
    for name in sorted(sizes):
        digest.update(f"{name}\t{sizes[name]}\n".encode("utf-8", "surrogateescape"))
    for sample in samples:
        if sample.modality:
            digest.update(f"{sample.file}\t{sample.labels}\t{sample.label}\n".encode("utf-8", "surrogateescape"))
    digest.update(folders.stated.encode())
    drawn = read_drawn(folders, root)
    digest.update(json.dumps(drawn, sort_keys=True).encode())
    source = {
        "fingerprint": digest.hexdigest(),
        "folder": str(root.absolute()),
        "files": len(sizes),
        "bytes": sum(sizes.values()),
        "drawn": drawn,
    }
    if captioner:
        source["text"] = {"captioner": captioner, "fingerprint": folders.text_fingerprint(root, captioner)}
    return source


def usable(samples: Sequence[Sample], left_out: Collection[pathlib.Path]) -> list[Sample]:
    """The samples none of whose images are among those left out."""
    return [sample for sample in samples if not any(path in left_out for path in sample.images.values())]


def read_drawn(folders: Folders, root: pathlib.Path) -> dict[str, Any] | None:
    """The parameters of a drawn data set, None for a real one."""
    for folder in (root, root.parent) if root.name == folders.inner else (root,):
        marker = folder / DRAWN_FILE
        if marker.is_file():
            try:
                return {"parameters": read_json(marker)}
            except (OSError, ValueError) as error:
                raise UserError(f"{marker} is not valid JSON ({error}); draw the data again") from None
    return None


def _alternatives(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else "{" + ",".join(names) + "}"


def _image_files(folders: AlignedFolders, folder: pathlib.Path, subfolder: str) -> dict[tuple[str, str], pathlib.Path]:
    """(identity folder or "", base name) -> path of the images of one modality of a split."""
    parents = sorted(path for path in folder.iterdir() if path.is_dir()) if folders.folder_per_identity else [folder]
    paths = {}
    for parent in parents:
        place = parent / subfolder
        if not place.is_dir():
            continue
        for name in os.listdir(place):
            if name.lower().endswith(_IMAGE_SUFFIXES) and not name.startswith("."):
                paths[parent.name if folders.folder_per_identity else "", name] = place / name
    return paths


def _read_labels(folders: AlignedFolders, folder: pathlib.Path, keys: Sequence[tuple[str, str]]) -> list[NameLabels]:
    labels, wrong = [], []
    for _, name in keys:
        try:
            labels.append(folders.labels(pathlib.PurePath(name).stem))
        except ValueError:
            wrong.append(name)
    if wrong:
        raise UserError(
            f"{folders.name}: {len(wrong)} of {len(keys)} files in {folder} do not have a name of the form "
            f"{folders.file_form}: {few(wrong)}; rename or remove them"
        )
    return labels
