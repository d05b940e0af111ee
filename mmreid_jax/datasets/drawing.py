"""Draws data sets in their real on-disk layouts, for machines that hold no real data."""

from __future__ import annotations

import os
import pathlib
from collections import Counter
from typing import Any

import mmreid_jax.datasets as datasets
from mmreid_jax.drawn import sheet, writer
from mmreid_jax.drawn.drawings import Drawing, DrawnSample, Size
from mmreid_jax.errors import UserError

VERSION = writer.DRAWING_VERSION
"""Of the drawing: other images for the same parameters have another."""


def names() -> tuple[str, ...]:
    """Names of the data sets of this library that can be drawn."""
    return tuple(name for name in datasets.names() if datasets.get(name).drawing is not None)


def of(dataset: str) -> Drawing:
    """How a data set is drawn.

    Raises:
      UserError: there is none of that name, or it cannot be drawn.
    """
    described = datasets.get(dataset).drawing
    if described is None:
        raise UserError(f"{dataset!r} cannot be drawn; the data sets that can are {', '.join(names())}")
    return described


def size_of(
    dataset: str, identities: int | None = None, images_per_identity: int | None = None, cameras: int | None = None
) -> Size:
    """The size of a small set; what is None takes the data set's default.

    Raises:
      UserError: too small to train or evaluate on, or more than names can hold.
    """
    chosen = of(dataset)
    cameras = chosen.default.cameras if cameras is None else cameras
    images = chosen.default.images_per_identity if images_per_identity is None else images_per_identity
    identities = chosen.default.identities if identities is None else identities
    if not 2 <= cameras <= chosen.cameras:
        raise UserError(f"cameras is {cameras}; {dataset} needs 2 (matches cross cameras) to {chosen.cameras}")
    if not 2 <= images <= 100:
        raise UserError(f"images_per_identity is {images}; it must be 2 (one to find the other) to 100")
    if not 2 <= identities <= 300:
        raise UserError(f"identities is {identities}; it must be 2 to 300 (file names end at identity 600)")
    return Size(identities, images, cameras)


def plan(
    dataset: str,
    *,
    identities: int | None = None,
    images_per_identity: int | None = None,
    cameras: int | None = None,
    full: bool = False,
) -> list[DrawnSample]:
    """All samples of a drawn data set, without drawing any.

    Args:
      dataset: its name; ``regdb/trial_1`` ... ``regdb/trial_10`` are the same images in other splits.
      identities: identities in each of training and test.
      images_per_identity, cameras: images of each identity, and from how many cameras.
      full: the public names and counts instead; the three numbers above must be None.

    Raises:
      UserError: unknown data set, or impossible numbers.
    """
    chosen = of(dataset)
    if full:
        if any(number is not None for number in (identities, images_per_identity, cameras)):
            raise UserError("a full set has the public counts; leave out identities, images_per_identity and cameras")
        samples = chosen.full()
    else:
        samples = chosen.small(size_of(dataset, identities, images_per_identity, cameras))
    if chosen.regroup:
        samples = chosen.regroup(samples, datasets.get(dataset).part)
    twice = [
        path
        for path, count in Counter(path for sample in samples for path in chosen.paths(sample)).items()
        if count > 1
    ]
    if twice:
        raise ValueError(f"{dataset}: {len(twice)} files would be written twice, first {twice[0]}")
    return samples


def draw(
    dataset: str,
    out: str | os.PathLike[str],
    *,
    identities: int | None = None,
    images_per_identity: int | None = None,
    cameras: int | None = None,
    full: bool = False,
    jobs: int = 1,
    progress: bool = False,
    **rendering: Any,
) -> writer.Summary:
    """Makes sure that a data set is drawn into its folder below `out`, for example ``out/RGBNT201``.

    Args:
      dataset, identities, images_per_identity, cameras, full: see `plan`.
      out: where the folder of the data set goes; made if needed.
      jobs, progress: see `writer.write`.
      **rendering: seed, shift and image_size of `writer.Rendering`; what is None takes its default.

    Raises:
      UserError: unknown data set, impossible parameters, the folder holds something else, or the disk refuses.
    """
    numbers: dict[str, Any] = {"identities": identities, "images_per_identity": images_per_identity, "cameras": cameras}
    samples = plan(dataset, **numbers, full=full)
    size = None if full else size_of(dataset, **numbers)
    chosen = writer.Rendering(**{name: value for name, value in rendering.items() if value is not None})
    return writer.write(of(dataset), samples, out, size=size, rendering=chosen, jobs=jobs, progress=progress)


def contact_sheet(
    dataset: str,
    folder: str | os.PathLike[str],
    out_png: str | os.PathLike[str],
    *,
    identities: int = 6,
    cameras: int = 4,
    split: str = "train",
) -> pathlib.Path:
    """Writes a picture of a drawn data set: see `sheet.contact_sheet`.

    Args:
      dataset: its name.
      folder: the `out` of `draw`, or the data set's folder in it.
      out_png: the picture to write.
      identities, cameras: how many to show at most; of a visible-infrared data set so many cameras of each modality.
      split: ``train``, ``query`` or ``gallery``.

    Raises:
      UserError: there is no drawn data set, or the picture cannot be written.
    """
    place = of(dataset)
    root = pathlib.Path(folder)
    root = root / place.root if (root / place.root).is_dir() else root
    drawn = writer.read_marker(root)
    if drawn is None or drawn.get("dataset") != place.name:
        raise UserError(f"{root} holds no drawn {dataset}; draw it first with python -m mmreid_jax synthesize")
    sizes = {} if drawn["full"] else {key: drawn[key] for key in ("identities", "images_per_identity", "cameras")}
    samples = [sample for sample in plan(dataset, full=drawn["full"], **sizes) if split in sample.splits]
    return sheet.contact_sheet(
        place, samples, root, out_png, size=drawn["image_size"], identities=identities, cameras=cameras
    )
