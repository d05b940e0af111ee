"""Draws the samples of a data set and writes them in its real layout, all or nothing."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import pathlib
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmreid_jax.data import aligned_captions, captions
from mmreid_jax.drawn import drawings, person, sensor, vehicle, words
from mmreid_jax.drawn.attributes import (
    RESERVED_SEEDS,
    describe,
    person_identity,
    shot,
    vehicle_identity,
)
from mmreid_jax.drawn.drawings import Drawing, DrawnSample, Size
from mmreid_jax.drawn.streams import generator
from mmreid_jax.errors import UserError
from mmreid_jax.paths import path_of, read_json

MARKER = "drawn.json"
"""File in the folder of a drawn data set that holds the parameters of the drawing; written last."""

DRAWING_VERSION = 3
"""Goes up when the same parameters give other images, so that old sets are not taken for new ones."""

TEXT_VERSION = 1
"""Goes up when the same parameters give other captions; the images do not depend on it. It stands in the MARKER beside
the captions, which is written last."""

DEFAULT_SHIFT = 0.5
_QUALITY = 92
_CHUNK = 48
_WORTH_A_PROCESS = 200
"""Samples that take about as long to draw as another process to start."""


@dataclasses.dataclass(frozen=True)
class Count:
    """How much a split holds; cameras are views where the data set takes those for cameras."""

    samples: int
    identities: int
    cameras: int


@dataclasses.dataclass(frozen=True)
class Rendering:
    """What the images of given samples depend on; the same values give the same bytes.

    Attributes:
      seed: another seed, other people; not one of `attributes.RESERVED_SEEDS`, on whose people trunks were trained.
      shift: 0...1, how far light and sensors of the test cameras differ from training.
      image_size: (height, width) of one modality; None for the data set's own.
    """

    seed: int = 0
    shift: float = DEFAULT_SHIFT
    image_size: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Summary:
    """A drawn data set.

    Attributes:
      root: its folder.
      counts: split -> number of samples, identities and cameras.
      files: number of image files.
      reused: True when the same set was there already and nothing was drawn.
    """

    root: pathlib.Path
    counts: Mapping[str, Count]
    files: int
    reused: bool


def draw_sample(drawing: Drawing, sample: DrawnSample, rendering: Rendering = Rendering()) -> dict[str, np.ndarray]:
    """The images of one sample, modality -> uint8 [H, W, 3], as the data set has them."""
    seed = rendering.seed
    moment = shot(
        seed,
        sample.identity,
        sample.place or sample.camera,
        kind=drawing.kind,
        scene=sample.scene,
        frame=sample.frame,
        view=sample.view,
        split="train" if sample.trained_on or not drawing.moved else "test",
        shift=rendering.shift,
        size=rendering.image_size or drawing.image_size,
        light=sample.light or ("day" if drawing.darken else None),
        heading=sample.heading,
        scenario=drawing.scenario,
    )
    if drawing.kind == "vehicle":
        images = vehicle.draw_vehicle(vehicle_identity(seed, sample.identity), moment)
    elif sample.identity == drawings.DISTRACTOR:
        images = person.draw_nobody(moment)
    elif sample.identity == drawings.JUNK:
        # A detection gone wrong: a piece of somebody.
        piece = dataclasses.replace(moment, zoom=1.9, shift=(moment.place - 0.5, 0.8 * moment.occluder_place))
        images = person.draw_person(person_identity(seed, -1000 - sample.frame), piece)
    else:
        seen = (sample.modality,) if sample.modality else sensor.MODALITIES
        images = person.draw_person(person_identity(seed, sample.identity), moment, seen)
    if drawing.darken:
        grey = images["rgb"] @ np.array([0.299, 0.587, 0.114], np.float32)
        images["nir"] = np.repeat((grey + 0.5).astype(np.uint8)[:, :, None], 3, axis=2)
        images["rgb"] = (images["rgb"] * np.float32(drawing.darken) + 0.5).astype(np.uint8)
    return images


def _encode(image: np.ndarray, path: pathlib.Path) -> None:
    from PIL import Image

    if path.suffix == ".bmp":
        Image.fromarray(image).save(path, "BMP")
    else:
        Image.fromarray(image).save(path, "JPEG", quality=_QUALITY)


def _draw_chunk(drawing: Drawing, rendering: Rendering, root: str, samples: Sequence[DrawnSample]) -> int:
    """Draws and writes some samples below `root`; returns how many."""
    for sample in samples:
        images = draw_sample(drawing, sample, rendering)
        written: dict[tuple[str, ...], pathlib.Path] = {}
        for path, parts in drawing.paths(sample).items():
            target = pathlib.Path(root, path)
            if parts in written:
                shutil.copyfile(written[parts], target)
            else:
                _encode(np.concatenate([images[name] for name in parts], axis=1), target)
                written[parts] = target
    return len(samples)


@functools.lru_cache(maxsize=8)
def _looks(seed: int, identity: int) -> Mapping[str, str]:
    return describe(person_identity(seed, identity))


@functools.lru_cache(maxsize=8)
def _vehicle_looks(seed: int, identity: int) -> Mapping[str, str]:
    return describe(vehicle_identity(seed, identity))


def _text_stream(seed: int, modality: str, sample: DrawnSample) -> np.random.Generator:
    """Source of what a captioner overlooks or mistakes in a picture."""
    return generator(seed, f"caption {modality}", sample.identity, sample.scene * 64 + sample.camera, sample.frame)


def caption_images(drawing: Drawing, sample: DrawnSample, *, seed: int = 0) -> dict[str, str]:
    """What a captioner says of each image of a sample with all modalities, by modality."""
    told = {}
    for modality in drawing.modalities:
        random = _text_stream(seed, modality, sample)
        if drawing.kind == "vehicle":
            told[modality] = words.vehicle_caption(_vehicle_looks(seed, sample.identity), modality, random)
        else:
            told[modality] = words.caption(words.notice(_looks(seed, sample.identity), modality, random), random)
    return told


def caption_sample(drawing: Drawing, sample: DrawnSample, *, seed: int = 0) -> captions.Captioned:
    """What a captioner, and a language model after it, say of a sample of one modality."""
    modality = str(sample.modality)
    random = _text_stream(seed, modality, sample)
    seen = words.notice(_looks(seed, sample.identity), modality, random)
    image = captions.Image(next(iter(drawing.paths(sample))), sample.identity, modality)
    return captions.Captioned(
        image, words.caption(seen, random), words.rephrase(seen, modality, random), sample.trained_on
    )


def _write_text(drawing: Drawing, samples: Sequence[DrawnSample], root: pathlib.Path, seed: int) -> None:
    """Writes the captions of a data set into its folder."""
    assert drawing.captions is not None
    # So that captions which are not complete yet are told from somebody's own.
    _mark_text(root / drawing.text_folder, 0)
    if drawing.captions.aligned:
        _write_image_texts(drawing, samples, root, seed)
    else:
        captioned = [caption_sample(drawing, sample, seed=seed) for sample in samples]
        captions.write(root, captions.CAPTIONER, drawing.captions, captioned)
    _mark_text(root / drawing.text_folder, TEXT_VERSION)


def _write_image_texts(drawing: Drawing, samples: Sequence[DrawnSample], root: pathlib.Path, seed: int) -> None:
    """Writes the captions of every image of samples with all modalities."""
    texts: dict[str, dict[str, dict[str, str]]] = {}
    for sample in samples:
        part = texts.setdefault(aligned_captions.part_of(sample.splits[0]), {})
        for modality, text in caption_images(drawing, sample, seed=seed).items():
            part.setdefault(modality, {})[sample.file] = text
    aligned_captions.write(root / drawing.beside_splits, texts)


def _mark_text(folder: pathlib.Path, version: int) -> None:
    """Says which version of the captions a folder holds."""
    folder.mkdir(exist_ok=True)
    (folder / MARKER).write_text(json.dumps({"text_version": version}) + "\n")


def _has_text(text: pathlib.Path) -> bool:
    """Whether the captions in a folder of a drawn data set are those that would be written today, or somebody's own."""
    try:
        return bool(read_json(text / MARKER) == {"text_version": TEXT_VERSION})
    except (OSError, ValueError):
        return text.is_dir() and any(text.iterdir())


def _counts(drawing: Drawing, samples: Sequence[DrawnSample]) -> dict[str, Count]:
    return {
        split: Count(len(inside), len({s.identity for s in inside}), len({s.seen_by for s in inside}))
        for split in drawing.folders
        if (inside := [sample for sample in samples if split in sample.splits])
    }


def read_marker(root: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The parameters a folder was drawn with, None if it is not a completely drawn data set."""
    try:
        marker = read_json(pathlib.Path(root, MARKER))
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) else None


def _is_drawn(root: pathlib.Path, parameters: Mapping[str, Any]) -> bool:
    """Whether the folder holds exactly this set.

    Raises:
      UserError: it holds something else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    marker = read_marker(root)
    if marker == parameters:
        return True
    if marker is None:
        raise UserError(f"{root} exists and is not drawn data; choose another folder with --out")
    differing = [key for key in parameters if marker.get(key) != parameters[key]]
    raise UserError(
        f"{root} holds a set drawn with other parameters ({', '.join(differing)}); remove it or choose another folder"
    )


def _clear_leftovers(out: pathlib.Path, prefix: str) -> None:
    """Removes what drawings of this machine left that were killed half-way."""
    for folder in out.glob(f"{prefix}*"):
        number = folder.name.removeprefix(prefix)
        if number.isdigit() and not _is_alive(int(number)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def _unfinished(out: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """A folder beside the final one to draw into; gone afterwards unless it was renamed."""
    prefix = f".{name}.drawing-{socket.gethostname()}-"
    _clear_leftovers(out, prefix)
    folder = out / f"{prefix}{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def processes(jobs: int, samples: int) -> int:
    """How many processes draw so many samples where `jobs` are asked for; 0: as many as there are cores and work."""
    return jobs or max(1, min(os.cpu_count() or 1, samples // _WORTH_A_PROCESS))


def _results(work: Any, chunks: Sequence[Sequence[DrawnSample]], jobs: int) -> Iterator[int]:
    if jobs == 1:
        yield from map(work, chunks)
        return
    # Processes are spawned, not forked: the caller may hold threads and devices.
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(jobs, len(chunks)), mp_context=spawn) as pool:
        try:
            yield from pool.map(work, chunks)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def write(
    drawing: Drawing,
    samples: Sequence[DrawnSample],
    out: str | os.PathLike[str],
    *,
    size: Size | None = None,
    rendering: Rendering = Rendering(),
    jobs: int = 1,
    progress: bool = False,
) -> Summary:
    """Draws a data set into its folder below `out`, for example ``out/RGBNT201``.

    The folder appears in one rename when everything is written, so a run that is killed leaves nothing that looks like
    a data set. A folder that holds the same set already is kept; one without captions, or with old ones, gets them.

    Args:
      drawing: of the data set.
      samples: all of it.
      out: where the folder of the data set goes; made if needed.
      size: of a small set; None for one with the public names and counts.
      rendering: of the images.
      jobs: processes that draw, on which no byte depends; 0: one for each core, as far as they are worth starting.
      progress: shows a progress bar.

    Raises:
      UserError: impossible parameters, the folder holds something else, or the disk refuses.
    """
    _check(drawing, rendering, jobs)
    parameters = {
        "dataset": drawing.name,
        "seed": rendering.seed,
        "full": size is None,
        "identities": size and size.identities,
        "images_per_identity": size and size.images_per_identity,
        "cameras": size and size.cameras,
        "shift": float(rendering.shift),
        "image_size": list(rendering.image_size or drawing.image_size),
        "drawing_version": DRAWING_VERSION,
    }
    root = path_of(out) / drawing.root
    files = sum(len(drawing.paths(sample)) for sample in samples)
    summary = Summary(root, _counts(drawing, samples), files, reused=False)
    try:
        if _is_drawn(root, parameters):
            if drawing.captions and not _has_text(root / drawing.text_folder):
                # The set may lie on a disk that cannot be written to; who needs the captions will be told so.
                with contextlib.suppress(OSError):
                    _write_text(drawing, samples, root, rendering.seed)
            return dataclasses.replace(summary, reused=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        with _unfinished(root.parent, drawing.root) as folder:
            _make_folders(drawing, samples, folder)
            # Chunks of neighbours: they share identities and backgrounds, which are kept between shots.
            chunks = [samples[i : i + _CHUNK] for i in range(0, len(samples), _CHUNK)]
            work = functools.partial(_draw_chunk, drawing, rendering, str(folder))
            with _bar(len(samples), f"drawing {drawing.name}", progress) as advance:
                for done in _results(work, chunks, processes(jobs, len(samples))):
                    advance(done)
            if drawing.captions:
                _write_text(drawing, samples, folder, rendering.seed)
            (folder / MARKER).write_text(json.dumps(parameters, indent=2) + "\n")
            return dataclasses.replace(summary, reused=not _publish(folder, root, parameters))
    except OSError as error:
        raise UserError(f"cannot write drawn data below {root.parent}: {error.strerror or error}") from error


def _make_folders(drawing: Drawing, samples: Sequence[DrawnSample], folder: pathlib.Path) -> None:
    """Makes the folders of all images, and writes the lists that come with these."""
    lists = drawing.lists(samples) if drawing.lists else {}
    paths = {path for sample in samples for path in drawing.paths(sample)}
    for parent in sorted({os.path.dirname(path) for path in (*paths, *lists)}.union(drawing.made)):
        (folder / parent).mkdir(parents=True, exist_ok=True)
    for path, text in lists.items():
        (folder / path).write_text(text)


def _publish(folder: pathlib.Path, root: pathlib.Path, parameters: Mapping[str, Any]) -> bool:
    """Renames a finished folder to its final name; False where the same set appeared there in the meantime."""
    try:
        folder.rename(root)
    except OSError:
        if _is_drawn(root, parameters):
            return False
        raise
    return True


def _check(drawing: Drawing, rendering: Rendering, jobs: int) -> None:
    """Raises UserError where a data set cannot be drawn so."""
    seed, shift, image_size = rendering.seed, rendering.shift, rendering.image_size
    if seed >= RESERVED_SEEDS.start:
        raise UserError(
            f"seed is {seed}; those from {RESERVED_SEEDS.start} on are kept for the people that trunks are trained on"
        )
    if not 0 <= shift <= 1:
        raise UserError(f"shift is {shift}; it must be between 0 (test cameras as in training) and 1")
    if jobs < 0:
        raise UserError(f"jobs is {jobs}; it must be 0 (all cores) or more")
    if image_size is None:
        return
    if drawing.fixed_size and tuple(image_size) != drawing.image_size:
        raise UserError(
            f"image_size is {tuple(image_size)}; {drawing.name} keeps its modalities side by side and is cut at fixed "
            f"columns, so it can only be drawn at {drawing.image_size}"
        )
    if not all(16 <= length <= 512 for length in image_size):
        raise UserError(f"image_size is {tuple(image_size)}; height and width must be 16 to 512")


@contextlib.contextmanager
def _bar(total: int, title: str, visible: bool) -> Iterator[Any]:
    """Yields a function that moves a progress bar by a number of samples, or does nothing."""
    if not visible:
        yield lambda done: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=title, unit="sample") as bar:
        yield bar.update
