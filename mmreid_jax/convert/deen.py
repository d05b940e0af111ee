"""Trained networks of DEEN (CVPR 2023): the ``net`` of the authors' checkpoints.

The trunk is that of AGW, three whole ResNets of which the network uses parts. Where it ends before the last stage
(RegDB) no part of that stage is used; it is dropped, and written as zeros on export for strict loaders. Reference:
class ``embed_net`` of the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mmreid_jax.convert import resnet, two_stream
from mmreid_jax.convert.layout import AnyLayout, Drop, Layout, Rule, Variants, batch_norm, conv, join, nest

_UNUSED = "the network ends before this stage"
_BRANCHES, _DILATIONS = (1, 2), (1, 2, 3)
_RELEASED = (2, 3)
"""Stages that the released networks expand, of RegDB and of the other data sets."""


def layout(
    expanded: int | None = None, stages: tuple[int, ...] = two_stream.STAGES, bottleneck: bool = True
) -> AnyLayout:
    """The name map of a trained network.

    Args:
      expanded: number of the stage after which embeddings are expanded; None: whichever the file has.
      stages, bottleneck: of the ResNet.
    """
    if expanded is not None:
        return _layout(expanded, stages, bottleneck)
    # Of two that know as many names of a file the first is taken, so the one with fewer layers comes first.
    return Variants("deen", tuple(_layout(each, stages, bottleneck) for each in _RELEASED))


def _layout(expanded: int, stages: tuple[int, ...], bottleneck: bool) -> Layout:
    last = expanded + 1
    blocks = [aggregation(f"MFA{number}.", f"aggregation{number}/") for number in range(1, last)]
    return join(
        "deen",
        two_stream.trunk(stages[:last], bottleneck),
        _unused_stages(stages, last, bottleneck),
        *(nest(block, target="backbone/shared/") for block in (expansion(), *blocks)),
        two_stream.neck(),
    )


def aggregation(source: str = "", target: str = "") -> Layout:
    """The name map of a feature aggregation alone, with the given prefixes."""
    rules: list[Rule] = []
    for theirs, ours in (("CNL", "channels"), ("PNL", "positions")):
        for name in ("g", "theta", "phi"):
            rules += two_stream.point(f"{source}{theirs}.{name}", f"{target}{ours}/{name}")
        rules += two_stream.point(f"{source}{theirs}.W.0", f"{target}{ours}/expand")
        rules += batch_norm(f"{source}{theirs}.W.1", f"{target}{ours}/norm")
    return Layout("deen", tuple(rules))


def expansion(source: str = "DEE.", target: str = "expansion/") -> Layout:
    """The name map of the embedding expansion alone, with the given prefixes."""
    rules: list[Rule] = []
    for branch in _BRANCHES:
        ours = f"{target}branch{branch}"
        for dilation in _DILATIONS:
            rules += conv(f"{source}FC{branch}{dilation}", f"{ours}/dilated{dilation}")
        rules += conv(f"{source}FC{branch}", f"{ours}/widen", bias=True)
    return Layout("deen", tuple(rules))


def _unused_stages(stages: tuple[int, ...], last: int, bottleneck: bool) -> Layout:
    """The stages after the last one, in all three ResNets of a file: dropped, and zeros on export."""
    drops = []
    for rule in resnet.layout(stages=stages, bottleneck=bottleneck).rules:
        stage, _, rest = rule.source.partition(".")
        if not stage.startswith("layer") or int(stage.removeprefix("layer")) <= last:
            continue
        doubled = 2 ** (int(stage.removeprefix("layer")) - last)
        like = f"base_resnet.base.layer{last}.{rest}"
        for prefix in ("thermal_module.thermal.", "visible_module.visible.", "base_resnet.base."):
            drops.append(Drop(f"{prefix}{rule.source}", _UNUSED, _zeros(like, doubled)))
    return Layout("deen", (), tuple(drops))


def _zeros(like: str, factor: int) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Zeros in the shape of another entry, with so many times its channels."""

    def fill(exported: Mapping[str, np.ndarray]) -> np.ndarray:
        known = exported[like]
        shape = [size * factor if axis < 2 else size for axis, size in enumerate(known.shape)]
        return np.zeros(shape, known.dtype)

    return fill
