"""Prepares a data set once: checks its files, compares them with what is known of it, and writes them into records.

All checks come first: what cannot be loaded or scored later is never written. Captions in the folder ``Text`` of a
visible-infrared data set, or ``text`` of a tri-modal one, go into the records as well; records that were prepared
before the captions were there are written again.

The records appear in one rename when they are complete; a run that is killed leaves nothing that looks prepared.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import io
import logging
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import mmreid_jax.datasets as datasets
from mmreid_jax import locks, owned
from mmreid_jax.data import images, listing
from mmreid_jax.datasets import catalogue, disk, verify
from mmreid_jax.datasets.base import Dataset
from mmreid_jax.datasets.folder import POLICIES
from mmreid_jax.errors import UserError, printable
from mmreid_jax.paths import file_problem, path_of

_UNFINISHED = "incomplete."
_READERS = 8
_OURS: tuple[str, owned.Listed] = ("prepared data set", catalogue.files_of)
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared data set.

    Attributes:
      dataset: its name.
      data_dir: folder of prepared data sets.
      directory: where its records lie.
      fresh: True when this call wrote them, False when they were there.
      report: how they compare with the public counts and names.
    """

    dataset: str
    data_dir: pathlib.Path
    directory: pathlib.Path
    fresh: bool
    report: verify.DatasetReport


def prepare(
    dataset: str,
    manual_dir: str | os.PathLike[str] | None,
    data_dir: str | os.PathLike[str],
    *,
    captioner: str = "",
    check_images: bool = False,
    broken: str = "stop",
    follow_links: bool = False,
    force: bool = False,
    progress: bool = False,
    described: Dataset | None = None,
) -> Prepared:
    """Makes sure that a data set is prepared in `data_dir`.

    Args:
      dataset: a name of `mmreid_jax.datasets.get`.
      manual_dir: the data set's folder or its parent; None to accept what is prepared already.
      data_dir: folder of prepared data sets.
      captioner: whose texts to put into the records; "" for those of the usual one, or of the one whose texts are in
        the records, if they are there.
      check_images: decode every image and name those that cannot be read; without it, that each is a file of its own
        and begins like an image is looked at once, before the records are written.
      broken: ``stop`` refuses a data set with images that cannot be used and names them; ``skip`` leaves out their
        samples, which the log and the records' description name.
      follow_links: take images that are links to files outside of the data set's folder.
      force: write the records again even if they are there.
      progress: show progress bars on standard error.
      described: the data set itself, where it is not prepared yet and its name alone cannot tell it (``own:NAME``).

    Raises:
      UserError: folders or counterparts are missing, names are wrong, images are unreadable, texts are missing or
        damaged, the disk is too small, or the data prepared earlier were made from other files.
    """
    chosen = described or datasets.get(dataset, data_dir)
    # Public lists are looked up by the name.
    compared = described or dataset
    folders = chosen.folders
    directory = catalogue.prepared_dir(dataset, data_dir)
    if manual_dir is not None:
        with _alone(directory.parent):
            owned.check_directory(directory, True, *_OURS)
            earlier = None if force else catalogue.source_of(dataset, data_dir)
            look = _Look(check_images, broken, follow_links)
            source = _listed(chosen, manual_dir, directory, earlier, captioner, look, progress)
            # What cannot be compared raises here, before anything is written.
            verify.compare(compared, verify.tables_of(source.samples), source.described["drawn"] is not None)
            fresh = _write_if_needed(chosen, source, directory, earlier, progress)
    elif force or check_images or catalogue.source_of(dataset, data_dir) is None:
        raise UserError(
            f"name the folder of {dataset}'s images with --manual_dir. {folders.instructions} {folders.without_data}"
        )
    else:
        fresh = False
    report = verify.check(compared, _load_all(dataset, data_dir))
    return Prepared(dataset, path_of(data_dir), directory, fresh, report)


def summary(prepared: Prepared, cameras: Sequence[str] = ()) -> str:
    """A table of the splits (identities, samples, cameras) and the verdict, for the terminal.

    Args:
      prepared: what to speak of.
      cameras: names of the cameras, in the order of their numbers; empty: the numbers.
    """
    tables = _load_all(prepared.dataset, prepared.data_dir)
    lines = [f"{'split':<10}{'identities':>12}{'samples':>10}  cameras (samples)"]
    for split, records in tables.items():
        numbers, samples = np.unique(records.camera, return_counts=True)
        names = [cameras[number] if cameras else number for number in numbers]
        seen = ", ".join(f"{name} ({count})" for name, count in zip(names, samples, strict=True))
        lines.append(f"{split:<10}{len(records.identities):>12}{len(records):>10}  {seen}")
    state = "prepared" if prepared.fresh else "already prepared"
    source = catalogue.source_of(prepared.dataset, prepared.data_dir)
    text = source and source.get("text")
    remarks = [f"with the texts of {text['captioner']}", *source.get("text_checks", ())] if source and text else []
    return "\n".join([f"{prepared.dataset}: {state} in {prepared.directory}", *lines, *remarks, str(prepared.report)])


def _load_all(dataset: str, data_dir: str | os.PathLike[str]) -> dict[str, Any]:
    return {split: catalogue.load(dataset, split, data_dir) for split in datasets.get(dataset, data_dir).splits}


@dataclasses.dataclass(frozen=True)
class _Source:
    """The files that a data set is prepared from.

    Attributes:
      root: the folder that holds them.
      samples: split -> its samples, but for those with an image that is left out.
      left_out: image -> why it cannot be used.
      captioner: whose texts go into the records, "" for none.
      described: see `disk.describe_source`.
    """

    root: pathlib.Path
    samples: Mapping[str, Sequence[disk.Sample]]
    left_out: Mapping[pathlib.Path, str]
    captioner: str
    described: Mapping[str, Any]

    @property
    def every_sample(self) -> list[disk.Sample]:
        """Of all splits."""
        return [sample for listed in self.samples.values() for sample in listed]


def _listed(
    dataset: Dataset,
    manual_dir: str | os.PathLike[str],
    directory: pathlib.Path,
    earlier: Mapping[str, Any] | None,
    captioner: str,
    look: _Look,
    progress: bool,
) -> _Source:
    """The files of a data set, which must be those of the records of before if there are any."""
    folders = dataset.folders
    root = disk.find_root(folders, manual_dir)
    everything = {split: disk.list_samples(folders, root, split) for split in folders.splits}
    # What is prepared already was looked at then, unless something was left out that may be there now.
    whole = look.decode or not earlier or "left_out" in earlier or look.broken == "skip"
    # To decode takes minutes; the rest is over soon.
    bar = _bar(progress, "check images") if look.decode else lambda items, total: items
    left_out = _look_at(everything, root, folders.width, look, whole, bar)
    samples = {split: disk.usable(listed, left_out) for split, listed in everything.items()}
    if empty := [split for split, listed in samples.items() if not listed]:
        raise UserError(
            f"{folders.name}: no image of {empty[0]} can be used: {_few_of(left_out, root)}; get them again"
        )
    if left_out:
        count = sum(len(everything[split]) - len(listed) for split, listed in samples.items())
        _log.warning("%d samples of %s are left out: %s", count, folders.name, _few_of(left_out, root))
    if others := disk.other_images(folders, [sample for listed in everything.values() for sample in listed]):
        _log.warning("%d images are no part of %s: %s", len(others), folders.name, listing.in_words(others))
    known = (earlier or {}).get("text")
    if not captioner and known and known["captioner"] in folders.captioners(root):
        captioner = known["captioner"]
    captioner = disk.captioner_of(folders, root, captioner)
    every = [sample for listed in samples.values() for sample in listed]
    described = disk.describe_source(folders, root, every, captioner)
    if earlier and earlier["fingerprint"] != described["fingerprint"]:
        raise UserError(
            f"{folders.name} was prepared in {directory} from other files ({_in_words(earlier)}) than those now in "
            f"{root} ({_in_words(described)}); prepare again with --force, or use another --data_dir"
        )
    if known and known != described.get("text"):
        raise UserError(
            f"{folders.name} was prepared in {directory} with the texts of {known['captioner']} as they were then, not "
            f"with those now in {root / folders.text_folder}; prepare again with --force, or use another --data_dir"
        )
    return _Source(root, samples, left_out, captioner, described)


def _write_if_needed(
    dataset: Dataset,
    source: _Source,
    directory: pathlib.Path,
    earlier: Mapping[str, Any] | None,
    progress: bool,
) -> bool:
    """Writes the records unless the same ones are there; True if it wrote."""
    samples = source.every_sample
    if earlier and earlier.get("text") == source.described.get("text"):
        return False
    _check_space(directory.parent, samples)
    _write(dataset, source, directory, _bar(progress, "write records"))
    return True


def _write(dataset: Dataset, source: _Source, directory: pathlib.Path, bar: Callable[..., Any]) -> None:
    """Writes the records in a folder beside `directory` and moves them there, replacing what was there."""
    import tensorflow_datasets as tfds

    from mmreid_jax.datasets.builder import builder_of

    unfinished = directory.parent / f"{_UNFINISHED}{os.getpid()}"
    options: dict[str, Any] = {"config": dataset.part or None, "captioner": source.captioner}
    writer = builder_of(dataset)(data_dir=unfinished, file_format="array_record", **options)
    writer.progress, writer.left_out = bar, source.left_out
    settings = tfds.download.DownloadConfig(manual_dir=source.root, try_download_gcs=False)
    tfds.disable_progress_bar()
    try:
        # TFDS announces a download of unknown size; there is none.
        with contextlib.redirect_stdout(io.StringIO()):
            writer.download_and_prepare(download_dir=unfinished / "downloads", download_config=settings)
        owned.replace_directory(pathlib.Path(writer.data_dir), directory, True, *_OURS)
    except (OSError, RuntimeError) as error:
        cause = str(error).splitlines()[-1]  # TFDS puts the whole record before it
        raise UserError(f"cannot write the records of {dataset.folders.name} to {directory.parent}: {cause}") from error
    finally:
        tfds.enable_progress_bar()
        shutil.rmtree(unfinished, ignore_errors=True)


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """Only one process at a time prepares a data set; the first thing it does is to remove what killed ones left."""
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locks.exclusive(folder / ".lock"))
        except OSError as error:
            raise UserError(f"cannot write to {folder} ({error.strerror}); choose another --data_dir") from error
        for leftover in folder.glob(f"{_UNFINISHED}[0-9]*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def _check_space(folder: pathlib.Path, samples: Sequence[Any]) -> None:
    needed = sum(path.stat().st_size for sample in samples for path in sample.images.values())
    free = shutil.disk_usage(folder).free
    if needed * 1.02 > free:
        sizes = f"{free / 1e6:,.1f} MB free but the records need {needed / 1e6:,.1f} MB"
        raise UserError(f"{folder} has {sizes}; choose another --data_dir")


@dataclasses.dataclass(frozen=True)
class _Look:
    """How images are looked at before they are written.

    Attributes:
      decode: each as a whole.
      broken: see `prepare`.
      follow_links: see `prepare`.
    """

    decode: bool
    broken: str
    follow_links: bool

    def __post_init__(self) -> None:
        if self.broken not in POLICIES:
            raise UserError(f"broken is {self.broken!r}; choose one of {', '.join(POLICIES)}")


def _look_at(
    samples: Mapping[str, Sequence[disk.Sample]],
    root: pathlib.Path,
    width: int | None,
    look: _Look,
    whole: bool,
    bar: Callable[..., Any],
) -> dict[pathlib.Path, str]:
    """The images that cannot be used, with the reasons.

    Args:
      samples: split -> its samples.
      root: folder of the data set.
      width: that side-by-side images must have.
      look: how.
      whole: whether to open the files; else only that they are files is looked at.
      bar: around the files.

    Raises:
      UserError: there are such images, and they are to stop the preparation.
    """
    paths = sorted({path for listed in samples.values() for sample in listed for path in sample.images.values()})
    bad = _problems(paths, root, width, look, whole, bar)
    if bad and look.broken == "stop":
        raise UserError(
            f"{len(bad)} of {len(paths)} images cannot be used: {_few_of(bad, root)}; get them again, or leave out "
            "their samples with --broken skip (main.py: --config.data.broken_images=skip)"
        )
    return bad


def unusable(
    paths: Sequence[pathlib.Path], root: pathlib.Path, *, decode: bool, follow_links: bool, progress: bool = False
) -> dict[pathlib.Path, str]:
    """The images that `prepare` could not use, with the reasons.

    Args:
      paths: of the images.
      root: folder of the data set.
      decode: each as a whole; else whether it is a file that begins like an image.
      follow_links: see `prepare`.
      progress: see `prepare`.
    """
    look = _Look(decode, "stop", follow_links)
    return _problems(paths, root, None, look, True, _bar(progress and decode, "check images"))


def _problems(
    paths: Sequence[pathlib.Path],
    root: pathlib.Path,
    width: int | None,
    look: _Look,
    whole: bool,
    bar: Callable[..., Any],
) -> dict[pathlib.Path, str]:
    """See `_look_at`."""
    problem = functools.partial(_image_problem, home=root.resolve(), width=width, look=look, whole=whole)
    with images.truncated_files(False), concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        found = list(bar(pool.map(problem, paths), total=len(paths)))
    return {path: reason for path, reason in zip(paths, found, strict=True) if reason}


def _image_problem(path: pathlib.Path, home: pathlib.Path, width: int | None, look: _Look, whole: bool) -> str:
    if reason := file_problem(path, listing.MOST_BYTES):
        return reason
    if not look.follow_links and path.is_symlink() and not path.resolve().is_relative_to(home):
        return f"a link out of the data set's folder, to {printable(path.resolve())}; --follow_links takes it"
    if not whole:
        return ""
    try:
        encoded = listing.read_file(path)
        size = images.check_header(encoded, path.name)
        if width and size[1] != width:
            return f"{size[1]} pixels wide, not {width}"
        if look.decode:
            images.decode(encoded, path.name)
    except images.BrokenImage as error:
        return error.reason
    return ""


def _few_of(bad: Mapping[pathlib.Path, str], root: pathlib.Path) -> str:
    return listing.in_words({str(path.relative_to(root)): reason for path, reason in bad.items()})


def _in_words(source: Mapping[str, Any]) -> str:
    kind = "drawn" if source["drawn"] else "real"
    return f"{source['files']} {kind} files, {source['bytes']} bytes, of {source['folder']}"


def _bar(progress: bool, title: str) -> Callable[..., Any]:
    """A progress bar around an iterable, or the iterable itself."""
    if not progress:
        return lambda items, total=None: items
    from tqdm import tqdm

    return lambda items, total=None: tqdm(items, desc=title, total=total, unit=" images", leave=False)
