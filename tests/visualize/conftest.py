"""A tiny gallery whose ranks are known, with plain grey images so that frames can be found by colour."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest


@dataclasses.dataclass
class Table:
    identity: np.ndarray
    camera: np.ndarray
    file: np.ndarray


def table(identity, camera, prefix):
    files = np.array([f"{prefix}{row}.jpg" for row in range(len(identity))])
    return Table(np.array(identity), np.array(camera), files)


@dataclasses.dataclass
class Case:
    """Four queries; the first right matches stand at ranks 1, 3, none (its only match is ignored), none (absent)."""

    query: Table
    gallery: Table
    distances: np.ndarray
    ignore: np.ndarray

    def images(self, side, row):
        grey = 60 if side == "query" else 100 + 10 * row
        return {name: np.full((32, 16, 3), grey, np.uint8) for name in ("rgb", "nir", "tir")}


@pytest.fixture
def case():
    query = table([5, 6, 7, 8], [0, 0, 0, 0], "query")
    gallery = table([5, 6, 7, 5, 6, 9], [0, 1, 0, 1, 1, 1], "gallery")
    distances = np.array(
        [
            [0.0, 0.5, 0.6, 0.2, 0.7, 0.9],
            [0.1, 0.4, 0.8, 0.3, 0.9, 0.7],
            [0.1, 0.2, 0.0, 0.3, 0.4, 0.5],
            [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
        ],
        np.float32,
    )
    same_identity = query.identity[:, None] == gallery.identity[None]
    same_camera = query.camera[:, None] == gallery.camera[None]
    return Case(query, gallery, distances, same_identity & same_camera)


@pytest.fixture
def pixels():
    """Decodes an image file held in memory to uint8 [H, W, 3]."""
    import io

    from PIL import Image

    def decode(content):
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert("RGB"))

    return decode
