"""Thresholds of a trained model that were measured once (`mmreid_jax calibrate`) and lie beside its checkpoints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from mmreid_jax.errors import UserError, printable
from mmreid_jax.paths import read_json, write_or_rescue
from mmreid_jax.retrieval.distances import Kind

FILE = "threshold.json"
"""Name of the file in a run's workdir, or in the directory of a converted model."""


@dataclasses.dataclass(frozen=True)
class Threshold:
    """The largest distance that counts as the same, of one comparison of a model.

    Attributes:
      distance: squared Euclidean, of the features as a search compares them.
      query: modalities of the queries.
      gallery: modalities of the gallery.
      wanted: false-alarm rate that was asked for.
      false_alarms: the rate on the data that it was measured on.
      false_alarms_interval: of that rate, 95 %.
      found: detection and identification rate at rank 1 there.
      found_interval: of that rate, 95 %.
      queries: number of queries.
      gallery_size: number of gallery samples; in a larger one there are more false alarms.
      dataset: that it was measured on.
      protocol: its rule.
      which: of the model's checkpoints, ``best`` or ``last``.
    """

    distance: float
    query: tuple[str, ...]
    gallery: tuple[str, ...]
    wanted: float
    false_alarms: float
    false_alarms_interval: tuple[float, float]
    found: float
    found_interval: tuple[float, float]
    queries: int
    gallery_size: int
    dataset: str
    protocol: str
    which: str

    def describe(self) -> str:
        """In a sentence."""
        alarms, hits = (
            f"{100 * rate:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
            for rate, (low, high) in (
                (self.false_alarms, self.false_alarms_interval),
                (self.found, self.found_interval),
            )
        )
        sides = " to ".join(filter(None, map("+".join, (self.query, self.gallery))))
        return (
            f"{f'{sides}: ' if sides else ''}at distance {self.distance:.4f} {alarms} of searches "
            f"for somebody absent find anybody, {hits} of searches for somebody present find them first"
        )


def squared(distance: float, kind: Kind) -> float:
    """A distance between features of length one as a squared Euclidean one."""
    return {"cosine": 2 * distance, "euclidean": distance * abs(distance), "squared_euclidean": distance}[kind]


def write(folder: Path, thresholds: Sequence[Threshold]) -> Path:
    """Writes them into the folder of a model, in place of earlier ones."""
    text = json.dumps([dataclasses.asdict(each) for each in thresholds], indent=1)
    write_or_rescue(folder / FILE, lambda path: path.write_text(text, encoding="utf-8"))
    return folder / FILE


def read(folder: Path) -> list[Threshold]:
    """Those of a model, none where none were measured.

    Raises:
      UserError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return []
    try:
        pairs = ("query", "gallery", "false_alarms_interval", "found_interval")
        found = [Threshold(**{**entry, **{key: tuple(entry[key]) for key in pairs}}) for entry in read_json(path)]
        for each in found:
            _check(each)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{printable(path)} is damaged ({error}); measure it again (python -m mmreid_jax calibrate), or name a "
            "threshold with --threshold"
        ) from None
    return found


def _check(threshold: Threshold) -> None:
    """Raises a `ValueError` where a value is not what `Threshold` says of it."""
    for name, value in dataclasses.asdict(threshold).items():
        if name in ("query", "gallery"):
            fine = all(isinstance(each, str) for each in value)
        elif name in ("dataset", "protocol", "which"):
            fine = isinstance(value, str)
        else:
            numbers = value if isinstance(value, tuple) else (value,)
            fine = len(numbers) == (2 if name.endswith("_interval") else 1) and all(map(_is_number, numbers))
        if not fine:
            raise ValueError(f"{name} is {printable(repr(value), 60)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
