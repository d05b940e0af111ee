"""What lies beside the records of a data set of one's own: its description, card, contact sheet, names of people."""

from __future__ import annotations

import csv
import functools
import io
import pathlib
from collections import Counter
from collections.abc import Mapping

import numpy as np

from mmreid_jax.data import images, listing, transforms
from mmreid_jax.datasets import disk
from mmreid_jax.datasets.catalogue import CARD, IDENTITIES, SHEET
from mmreid_jax.datasets.own.arrange import Arranged, counts
from mmreid_jax.datasets.own.description import Description, Samples
from mmreid_jax.drawn import sheet
from mmreid_jax.paths import own_description

_SIZE = (128, 64)


def files(description: Description, arranged: Arranged, samples: Samples) -> dict[str, bytes]:
    """Name -> content of the files that go beside the records.

    Args:
      description: of the data set.
      arranged: its samples as they were listed.
      samples: split -> those that are written.
    """
    made = {
        own_description(description.name, ".").name: description.to_json(),
        CARD: text(description, arranged, samples).encode(),
        SHEET: contact_sheet(description, samples),
    }
    if arranged.identities:
        stream = io.StringIO()
        csv.writer(stream).writerows([("identity", "name"), *((n, name) for name, n in arranged.identities.items())])
        made[IDENTITIES] = stream.getvalue().encode()
    return made


def text(description: Description, arranged: Arranged, samples: Samples) -> str:
    """The card, in Markdown: what there is, how it was split, how it is scored, what to know."""
    rows = [f"| {split} | {images_} | {people} |" for split, (images_, people) in counts(samples).items()]
    cameras = ", ".join(f"{number}: {name}" for number, name in enumerate(description.cameras)) or "not known"
    lines = [
        f"# {description.full_name}",
        "",
        f"A data set of one's own: {description.kind}.",
        "",
        "| split | samples | identities |",
        "|---|---|---|",
        *rows,
        "",
        f"* splits: {description.split}",
        f"* cameras (number in the records: name): {cameras}",
        *(f"* {protocol.describe()}" for protocol in description.protocols),
        *(f"* {note}" for note in arranged.notes),
        *([f"* identities are numbered; their names are in {IDENTITIES}"] if arranged.identities else []),
        "",
        f"![Some of the images]({SHEET})",
        "",
        f"Train on it: `python main.py --config configs/own.py --config.data.dataset={description.full_name}`",
        "",
    ]
    return "\n".join(lines)


def contact_sheet(description: Description, samples: Samples) -> bytes:
    """A picture of some identities as PNG; where cameras are not known, of each some images in their order."""
    seen: Counter[tuple[int, str]] = Counter()
    shots = []
    for sample in (sample for listed in samples.values() for sample in listed):
        key = sample.labels.identity, sample.modality
        shots.append(_shot(description, sample, seen[key]))
        seen[key] += 1
    stream = io.BytesIO()
    sheet.picture(shots, size=_SIZE).save(stream, "PNG")
    return stream.getvalue()


def _shot(description: Description, sample: disk.Sample, position: int) -> sheet.SheetSample:
    """One sample for the picture; `position`: among those of its identity and modality."""
    camera = sample.labels.camera
    column, place = (camera, f"camera {description.cameras[camera]}") if description.cameras else (position, "")
    shown = (sample.modality,) if sample.modality else description.modalities
    return sheet.SheetSample(
        sample.labels.identity,
        sample.modality,
        column,
        place,
        shown,
        functools.partial(_load, shown, sample.images),
    )


def _load(shown: tuple[str, ...], paths: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """The images of a sample in `_SIZE`; of one that cannot be decoded nothing but grey, which training will name."""
    made = {}
    for name, path in zip(shown, paths.values(), strict=True):
        try:
            whole = images.decode(listing.read_file(path), path.name)
            made[name] = transforms.resize(whole, _SIZE, "bilinear")
        except images.BrokenImage:
            made[name] = np.full((*_SIZE, 3), 128, np.uint8)
    return made
