"""Samples and lists of data sets, as files name them and as the authors read them."""

import csv
import gzip
from importlib import resources

from mmreid_jax import datasets
from mmreid_jax.datasets import disk
from mmreid_jax.testing import goldens


def listed(dataset, root, split="train"):
    return disk.list_samples(datasets.get(dataset).folders, root, split)


def manifest(name):
    table = resources.files("mmreid_jax.datasets.manifests") / f"{name}.csv.gz"
    return list(csv.DictReader(gzip.decompress(table.read_bytes()).decode().splitlines()))


def reference_trees():
    """Golden cases that list a folder and what the authors' readers made of it."""
    cases = [goldens.load(path) for path in goldens.cases("vi_protocols")]
    return [case for case in cases if "files" in case.json.get("sysu", {}) and "files" in case.json.get("llcm", {})]


def true_labels(dataset, split):
    """What the public names of a split say: the list of names that comes with the library, read by the data set."""
    parse = datasets.get(dataset).folders.labels
    return [parse(row["file"].removesuffix(".jpg")) for row in manifest(dataset) if row["split"] == split]
