"""True public file names of the data sets, and other public lists about them, as compressed tables."""

from __future__ import annotations

import csv
import gzip
from importlib import resources


def rows(name: str) -> list[dict[str, str]]:
    """The rows of a public list, none if there is no such list."""
    table = resources.files(__name__) / f"{name}.csv.gz"
    if not table.is_file():
        return []
    return list(csv.DictReader(gzip.decompress(table.read_bytes()).decode("utf-8").splitlines()))
