"""A small gallery and models that search it, for the tests of the page."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from mmreid_jax.datasets import folder
from mmreid_jax.serving.searching import Searcher
from tests.export import models

NAMES = ["0001_c1.png", "0001_c2.png", "0002_c1.png", "<img src=x onerror=alert(1)>.png", "0003_c2.png"]


def person(seed, shot=0):
    """An image uint8 [64, 32, 3]; shots of one person differ little."""
    rng = np.random.default_rng(seed)
    look = np.asarray(Image.fromarray(rng.integers(0, 256, (6, 3, 3), np.uint8)).resize((32, 64), 0), np.int64)
    return np.clip(look + np.random.default_rng(shot).integers(-6, 7, look.shape), 0, 255).astype(np.uint8)


def encoded(image, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind)
    return stream.getvalue()


def searcher(place, method="agw", modality="rgb"):
    """Over five images of four persons, of cameras 1, 2, 1, 2, 2."""
    place.mkdir(parents=True, exist_ok=True)
    for number, (name, who) in enumerate(zip(NAMES, (1, 1, 2, 4, 3), strict=True)):
        (place / name).write_bytes(encoded(person(who, number)))
    extractor = models.extractor(method)
    known = extractor.method.facts.modalities
    records, absent = folder.open_folder(place, known, modality, one=extractor.one_modality, flag="--modality")
    cameras = ["1" if "c1" in name else "2" for name in records.file]
    return Searcher(extractor, records, absent, cameras)
