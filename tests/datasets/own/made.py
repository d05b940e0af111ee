"""Data sets of one's own for tests: trees of noise images, and descriptions without records."""

from __future__ import annotations

from mmreid_jax.datasets.own.description import Description
from mmreid_jax.paths import OWN, own_description
from tests.datasets import trees

COUNTS = {"train": (40, 10), "query": (8, 4), "gallery": (16, 4)}


def description(name="mine", modalities=("rgb",), aligned=True, cameras=("1", "2")):
    return Description(name, modalities, aligned, cameras, COUNTS, "given")


def pretend(data_dir, name="mine", **options):
    """Writes the description of a data set alone: what configs and checks look at."""
    path = own_description(f"{OWN}{name}", data_dir)
    path.parent.mkdir(parents=True)
    path.write_bytes(description(name, **options).to_json())


def write(root, names, size=(16, 32)):
    """Noise images of these names below a folder."""
    for name in names:
        trees.write_image(root / name, size)
    return root


def people(count=6, cameras=2, shots=2):
    """(identity, camera, shot) of every image."""
    return [(p, c, s) for p in range(1, count + 1) for c in range(1, cameras + 1) for s in range(shots)]
