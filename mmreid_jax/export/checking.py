"""Whether an exported file makes the features of the model it comes from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.export.network import IMAGENET, TOKENS, Network

LARGEST_DIFFERENCE = 1e-4
"""Of a feature from the live model's, relative to its length."""
MOST_BYTES = 2 << 30
"""Of the samples that are compared."""
# One sample, then batches that are neither all alike nor powers of two.
_BATCHES = (1, 12, 16)
# Samples that the live model gets at a time.
_TOGETHER = 16
# CLIP's marks of both ends of a text.
_START, _END = 49406, 49407


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far the features of a file are from the live model's.

    Attributes:
      largest: relative to the length of the feature.
      images: compared.
      same_neighbour: share of the images whose nearest other one is the same.
    """

    largest: float
    images: int
    same_neighbour: float

    def __str__(self) -> str:
        return (
            f"largest difference from the live model {self.largest:.1e} (relative, {self.images} samples in batches of "
            f"{', '.join(map(str, _BATCHES))}), same nearest neighbour {self.same_neighbour:.1%}"
        )


def check_memory(network: Network, count: int) -> None:
    """Says before the work whether the samples to compare fit in memory.

    Raises:
      UserError: they are more than `MOST_BYTES`.
    """
    numbers = sum(math.prod(shape) for shape, _ in network.inputs.values())
    # The live model gets so many at a time, however few there are.
    needed = 4 * numbers * max(count, _TOGETHER)
    if needed > MOST_BYTES:
        size = "x".join(map(str, network.size))
        raise UserError(
            f"{count} samples of {size} pixels to compare take {needed / 2**30:.1f} GiB, more than the "
            f"{MOST_BYTES / 2**30:.0f} GiB that are used; choose a smaller --check or --input_size"
        )


def samples(network: Network, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Drawn inputs of a network: soft blots of all colours and sizes, and texts of random words.

    Args:
      network: says what it takes.
      count: samples.
      seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    made = {}
    for name, (shape, dtype) in network.inputs.items():
        made[name] = _texts(rng, count) if name.startswith("tokens_") else _images(rng, count, shape, network, dtype)
    return made


def _images(
    rng: np.random.Generator, count: int, shape: tuple[int, ...], network: Network, dtype: np.dtype
) -> np.ndarray:
    """[count, 3, H, W] as the contract of a network has them."""
    images = np.zeros((count, *shape), np.float32)
    for length in (2, 5, 16):
        coarse = rng.uniform(0, 1, (count, 3, 2 * length, length)).astype(np.float32)
        rows, columns = (
            np.arange(size) * part // size for size, part in zip(shape[1:], (2 * length, length), strict=True)
        )
        images += coarse[:, :, rows][..., columns] / 3
    if network.contract.pixels == "uint8":
        return np.round(255 * images).astype(dtype)
    if network.contract.pixels == "imagenet":
        mean, std = (np.array(IMAGENET[name], np.float32)[:, None, None] for name in ("mean", "std"))
        return (images - mean) / std
    return images


def _texts(rng: np.random.Generator, count: int) -> np.ndarray:
    """Tokens int32 [count, TOKENS] of texts of different lengths."""
    tokens = np.zeros((count, TOKENS), np.int32)
    for row in tokens:
        words = rng.integers(320, 40000, rng.integers(3, TOKENS - 2))
        row[: len(words) + 2] = (_START, *words, _END)
    return tokens


def compare(
    network: Network, run: Callable[[Mapping[str, np.ndarray]], np.ndarray], count: int, what: str
) -> Difference:
    """Compares a file with the live model on drawn samples, in batches of several sizes.

    Args:
      network: that the file was made of.
      run: the file: inputs by name -> features [B, D].
      count: samples.
      what: the file is, for the message.

    Raises:
      UserError: a feature differs by more than LARGEST_DIFFERENCE of its length.
    """
    every = samples(network, count)
    made, start, turn = [], 0, 0
    while start < count:
        stop = min(start + _BATCHES[min(turn, len(_BATCHES) - 1)], count)
        made.append(np.asarray(run({name: array[start:stop] for name, array in every.items()}), np.float64))
        start, turn = stop, turn + 1
    found, live = np.concatenate(made), _live(network, every, count)
    if found.shape != live.shape:
        raise UserError(f"{what} makes features {list(found.shape)} that are no copy of the model's {list(live.shape)}")
    for features, whose in ((live, "the model itself"), (found, what)):
        if odd := np.flatnonzero(~np.isfinite(features).all(axis=1)).size:
            raise UserError(f"{whose} makes features that are no finite numbers, of {odd} of {count} drawn samples")
    largest = float(np.linalg.norm(found - live, axis=1).max())
    same = float(np.mean(_nearest(found) == _nearest(live))) if count > 1 else 1.0
    if largest > LARGEST_DIFFERENCE:
        raise UserError(
            f"{what} differs from the live model by {largest:.1e} of the length of a feature, more than "
            f"{LARGEST_DIFFERENCE:.0e}; it is not written"
        )
    return Difference(largest, count, same)


def _live(network: Network, every: Mapping[str, np.ndarray], count: int) -> np.ndarray:
    """The live model's features of all samples, by one program."""
    size = min(_TOGETHER, count)
    rows = np.minimum(np.arange(-(-count // size) * size), count - 1)
    parts = [
        network.live({name: array[some] for name, array in every.items()}) for some in np.split(rows, len(rows) // size)
    ]
    return np.concatenate(parts)[:count]


def _nearest(features: np.ndarray) -> np.ndarray:
    """Of every row the number of the nearest other one."""
    likeness = features @ features.T
    np.fill_diagonal(likeness, -np.inf)
    return likeness.argmax(axis=1)
