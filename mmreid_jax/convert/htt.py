"""Trained networks of HTT (Heterogeneous Test-time Training, AAAI 2024): the authors' ``.pth`` files.

A file holds ``base.*`` (ViT or ResNet), ``bottleneck.*`` (batch norm) and ``classifier.weight``. Reference:
``make_model.py`` of HTT.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from mmreid_jax.convert import resnet, vit
from mmreid_jax.convert.layout import Drop, Layout, Variants, batch_norm, join, linear, nest
from mmreid_jax.errors import UserError

# The reference's ViT carries the unused classifier of ImageNet's classes, and its loader insists on it.
_IMAGENET_CLASSES = 1000
_UNUSED = "the reference creates it and never uses it; written as zeros on export"


def _zero_weight(exported: Mapping[str, np.ndarray]) -> np.ndarray:
    width = exported["norm.weight"]
    return np.zeros((_IMAGENET_CLASSES, len(width)), width.dtype)


def _zero_bias(exported: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.zeros(_IMAGENET_CLASSES, exported["norm.weight"].dtype)


def layout(backbone: str | None = None, grid: tuple[int, int] | None = None) -> Layout | Variants:
    """The name map of a trained HTT network.

    Args:
      backbone: "vit" or "resnet"; None: whichever the file follows.
      grid: rows and columns of patches that a ViT's position table is resized to, see `vit.layout`.
    """
    trained = vit.layout(grid, distilled=False, trained=True)
    fills = (Drop("fc.weight", _UNUSED, _zero_weight), Drop("fc.bias", _UNUSED, _zero_bias))
    backbones = {
        "vit": dataclasses.replace(trained, drops=fills),
        "resnet": resnet.layout(),
    }
    if backbone is None:
        return Variants("htt", tuple(_whole(each) for each in backbones.values()))
    if backbone not in backbones:
        raise UserError(f"HTT has no backbone {backbone!r}; choose vit or resnet")
    return _whole(backbones[backbone])


def _whole(backbone: Layout) -> Layout:
    neck = Layout(
        "neck",
        (*linear("classifier", "classifier", bias=False), *batch_norm("bottleneck", "bottleneck")),
        local=(Drop("params/centers", "class centres of the centre loss, which the authors do not save"),),
    )
    return join("htt", nest(backbone, "base.", "backbone/"), neck)
