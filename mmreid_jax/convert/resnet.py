"""ResNets in torchvision's names (``resnet50-19c8e357``): the backbone of most re-identification systems."""

from __future__ import annotations

import dataclasses

from mmreid_jax.convert.layout import Drop, Layout, Rule, batch_norm, conv, linear

_BLOCK: tuple[Rule, ...] = (
    *conv("layer{stage}.{block}.conv1", "layer{stage}_{block}/conv1"),
    *batch_norm("layer{stage}.{block}.bn1", "layer{stage}_{block}/bn1"),
    *conv("layer{stage}.{block}.conv2", "layer{stage}_{block}/conv2"),
    *batch_norm("layer{stage}.{block}.bn2", "layer{stage}_{block}/bn2"),
    # Basic blocks (ResNet-18 and -34) have two convolutions, bottlenecks three.
    *conv("layer{stage}.{block}.conv3", "layer{stage}_{block}/conv3", optional="third"),
    *batch_norm("layer{stage}.{block}.bn3", "layer{stage}_{block}/bn3", optional="third"),
    *conv("layer{stage}.{block}.downsample.0", "layer{stage}_{block}/downsample_0", optional="shortcut"),
    *batch_norm("layer{stage}.{block}.downsample.1", "layer{stage}_{block}/downsample_1", optional="shortcut"),
)


def layout(fc: bool = False, stages: tuple[int, ...] | None = None, bottleneck: bool = True) -> Layout:
    """The name map of a ResNet.

    Args:
      fc: also map the ImageNet classifier; otherwise it is dropped.
      stages: blocks per stage, all of which a file must then hold; None: as many as the file or the model has.
      bottleneck: blocks of three convolutions (with `stages` only).
    """
    block = _BLOCK if stages is None else _spelt_out(stages, bottleneck)
    stem = (*conv("conv1", "conv1"), *batch_norm("bn1", "bn1"))
    if fc:
        return Layout("resnet", (*stem, *block, *linear("fc", "fc")))
    return Layout("resnet", (*stem, *block), (Drop("fc.*", "ImageNet classifier, re-identification has its own"),))


def layout50() -> Layout:
    """The name map of a whole ResNet-50 without its classifier."""
    return dataclasses.replace(layout(stages=(3, 4, 6, 3)), name="resnet50")


def _spelt_out(stages: tuple[int, ...], bottleneck: bool) -> tuple[Rule, ...]:
    """The rules of every block by its numbers, each of them required."""
    rules = []
    for stage, blocks in enumerate(stages, start=1):
        for block in range(blocks):
            # Bottlenecks widen in their first stage as well, basic blocks do not.
            widens = block == 0 and (bottleneck or stage > 1)
            for rule in _BLOCK:
                part = rule.source.split(".")[2]
                if (part in ("conv3", "bn3") and not bottleneck) or (part == "downsample" and not widens):
                    continue
                numbers = {"stage": stage, "block": block}
                source, target = rule.source.format(**numbers), rule.target.format(**numbers)
                rules.append(dataclasses.replace(rule, source=source, target=target, optional=None))
    return tuple(rules)
