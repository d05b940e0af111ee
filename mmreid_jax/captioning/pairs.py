"""Captions for infrared images to fine-tune a captioner on: what a visible image of the person shows, but colours.

TVI-LFM (NeurIPS 2024) makes its infrared captioner so, on the training images of SYSU-MM01.
"""

from __future__ import annotations

import numpy as np

from mmreid_jax.captioning.colours import strip_colours


def infrared_captions(
    infrared: np.ndarray, visible: np.ndarray, captions: list[str], seed: int = 0
) -> tuple[np.ndarray, list[str]]:
    """A caption for every infrared image whose identity has a visible one, drawn evenly among those.

    Args:
      infrared: int [N], identities of the infrared images.
      visible: int [M], identities of the visible images.
      captions: [M], of the visible images.
      seed: of the draw; what infrared image i is given depends on it and i alone.

    Returns:
      (int [K] rows of the infrared images with a caption, their captions without colours [K]).
    """
    order = np.argsort(visible, kind="stable")
    first, last = (np.searchsorted(visible[order], infrared, side) for side in ("left", "right"))
    rows = np.flatnonzero(last > first)
    uniform = np.random.default_rng([seed, 0]).random(len(infrared))
    chosen = order[(first + uniform * (last - first)).astype(int)[rows]]
    return rows, [strip_colours(captions[row]) for row in chosen]
