"""Small tables of noise images on disk, for the tests of the input pipeline."""

import io

import numpy as np
from PIL import Image

from mmreid_jax.data.records import Records, View
from mmreid_jax.datasets.folder import FolderSource

MODALITIES = ("rgb", "nir", "tir")


def encoded_noise(seed, height=40, width=24, kind="JPEG", **options):
    """Bytes of an image file of smooth noise (plain noise would be all artefacts in JPEG)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, kind, **options)
    return file.getvalue()


def noise_records(folder, counts=(4, 4, 4), seed=0, modalities=MODALITIES, name="noise/train"):
    """A table with ``counts[i]`` samples of identity 10 * (i + 1), cameras 0, 1, 2, 0, ...; files ``<row>.jpg``."""
    identity = np.repeat(10 * (np.arange(len(counts)) + 1), counts).astype(np.int32)
    rows = np.arange(len(identity))
    names = tuple(f"{row:04d}.jpg" for row in rows)
    folders = {modality: folder / modality for modality in modalities}
    for m, place in enumerate(folders.values()):
        place.mkdir(parents=True)
        for row, file in enumerate(names):
            (place / file).write_bytes(encoded_noise([seed, m, row]))
    return Records(
        name=name,
        identity=identity,
        camera=(rows % 3).astype(np.int32),
        scene=(rows % 5).astype(np.int32),
        file=np.array(names),
        views={modality: View(modality) for modality in modalities},
        source=FolderSource(folders, names),
        rows=rows,
    )


def damage(records, row, modality="nir"):
    """Cuts off the end of the file of one image."""
    path = records.source.folders[modality] / str(records.file[row])
    path.write_bytes(path.read_bytes()[:-40])
    return path
