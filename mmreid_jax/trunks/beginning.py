"""How a small transformer that learns from few images begins: wide enough branches, and attention that sees places.

The usual random numbers of a ViT are those of a wide network that has a million images to learn from; a narrow one
leaves its plateau late. Here positions begin as sines, each head looks at its neighbours on one side, as a convolution
does, and the kernels are as large as the width asks for.

Reference: d'Ascoli et al. 2021 (ConViT: heads that begin as a convolution); Beyer et al. 2022 (positions as sines);
Trockman and Kolter 2023 (queries and keys that begin alike).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmreid_jax.models.vit import ViTSize

SHARPNESS = 1.5
"""Factor of queries and of keys that look at places."""
HEIGHT = 0.35
"""Of the sines."""
_SIDES = ((0, -1), (0, 1), (-1, 0), (1, 0))
"""(rows, columns) from a patch to where each head looks, in turn."""


def frequencies(width: int) -> np.ndarray:
    """Of the sines in tokens of this width, from a period of 4 patches to one of 32: [width / 4]."""
    return np.geomspace(np.pi / 2, np.pi / 16, width // 4)


def sines(grid: tuple[int, int], width: int) -> np.ndarray:
    """Places of patches: [rows * columns, width]; sine and cosine of the column, then of the row."""
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    angles = [place[:, None] * frequencies(width) for place in (columns, rows)]
    return HEIGHT * np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)], axis=1)


def neighbours(width: int, heads: int) -> np.ndarray:
    """Kernel of queries and keys, [width, 2 width], by which each head attends to the neighbour on one side.

    Keys are the `sines` of the place, those of queries are turned by the frequency, which makes them the keys of the
    neighbour. Every head has a share of the frequencies, from the shortest period to the longest.
    """
    count = width // 4
    queries, keys = np.zeros((width, width)), np.zeros((width, width))
    for number, frequency in enumerate(frequencies(width)):
        head = number % heads
        down, right = _SIDES[head % len(_SIDES)]
        for part, steps in ((0, right), (2, down)):
            sine, cosine = part * count + number, (part + 1) * count + number
            out = head * (width // heads) + 4 * (number // heads) + part
            turned = steps * frequency
            keys[sine, out] = keys[cosine, out + 1] = 1
            queries[sine, out], queries[cosine, out] = np.cos(turned), np.sin(turned)
            queries[sine, out + 1], queries[cosine, out + 1] = -np.sin(turned), np.cos(turned)
    return SHARPNESS * np.concatenate([queries, keys], axis=1)


def begun(params: Mapping[str, Any], size: ViTSize, grid: tuple[int, int]) -> dict[str, Any]:
    """Fresh parameters of a `VisionTransformer` of this size, made ready to learn from few images.

    Kernels get the deviation 1 / sqrt(inputs), those that end a branch 1 / sqrt(2 depth) of it.
    """
    blocks = {name: {**part} for name, part in params["blocks"].items()}
    for branch, layer, ends in (("attn", "qkv", 0), ("attn", "proj", 1), ("mlp", "fc1", 0), ("mlp", "fc2", 1)):
        kernel = np.array(blocks[branch][layer]["kernel"])
        wanted = kernel.shape[1] ** -0.5 * (2 * size.depth) ** (-0.5 * ends)
        kernel *= wanted / size.deviation(layer)
        if layer == "qkv":
            kernel[:, :, : 2 * size.width] *= size.deviation(layer) / wanted
            kernel[:, :, : 2 * size.width] += neighbours(size.width, size.heads)
        blocks[branch][layer] = {**blocks[branch][layer], "kernel": kernel}
    positions = np.array(params["pos_embed"])
    positions[0, 1:] += sines(grid, size.width)
    return {**params, "pos_embed": positions, "blocks": blocks}
