"""TVI-LFM's checkpoints: the visual network, the head and CLIP's text tower, after either of the two stages.

Files of the base stage hold the text tower, too, as CLIP has it; the visual network of that stage does not use it.
Files of the text stage hold copies of the base model's pool and head, or not: the published one does not.
Reference: section 4 of the paper (NeurIPS 2024) and ``save`` of its code, which writes the whole ``state_dict``.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping

import numpy as np

from mmreid_jax.convert import clip, resnet
from mmreid_jax.convert.layout import AS_IS, AnyLayout, Drop, Layout, Rule, Variants, batch_norm, join, linear, nest

STAGES = (3, 4, 6, 3)
NORMS = {"visible": "BN_RGB", "infrared": "BN_IR", "fusion": "BN_Fusion", "text": "BN_Text"}
"""Kind of feature -> name of its batch norm, in files of networks that have one for each."""
LOGIT_SCALE = math.log(1 / 0.07)
"""CLIP's, which every file holds and only losses that no released script uses would train."""
_STREAMS = {"visible": "rgb_model", "infrared": "ir_model", "shared": "shared_model"}
_TOWER = ("transformer.*", "token_embedding.*", "positional_embedding", "ln_final.*", "text_projection")


def layout(
    stages: tuple[int, ...] = STAGES,
    bottleneck: bool = True,
    *,
    text: bool = True,
    backup: bool = False,
    separate_norms: bool = False,
    scale: bool = False,
) -> Layout:
    """The name map of a network.

    Args:
      stages, bottleneck: of the ResNet.
      text: whether we have the text tower; else that of a file is dropped.
      backup: whether we have the copies of the base model's pool and head; else those of a file are dropped.
      separate_norms: whether every kind of feature has a batch norm of its own.
      scale: whether we have the factor on similarities; else that of a file is dropped, and written as CLIP's.
    """
    pool = Layout("pool", (Rule("p", "params/pool/power", AS_IS),))
    parts = [
        _visual(stages, bottleneck),
        nest(pool, "base_model.visual.GEM."),
        nest(_head(separate_norms), "classifier."),
    ]
    if text:
        parts.append(nest(clip.text_layout(), "base_model.", "text/"))
    else:
        reason = "the text tower, which this stage does not use"
        parts.append(Layout("text", (), tuple(Drop(f"base_model.{name}", reason) for name in _TOWER)))
    if backup:
        parts += [
            nest(pool, "backup_pool.", "backup/"),
            nest(_head(separate_norms), "backup_classifier.", "backup/"),
        ]
    else:
        parts.append(Layout("backup", (), (Drop("backup_*", "copies of the base model's head, not used here"),)))
    if scale:
        parts.append(Layout("scale", (Rule("logit_scale", "params/logit_scale", AS_IS),)))
    else:
        reason = "factor of losses that are not used here"
        fill = _logit_scale if text else None
        parts.append(Layout("scale", (), (Drop("logit_scale", reason, fill),)))
    return join("tvi_lfm", *parts)


def any_layout(stages: tuple[int, ...] = STAGES, bottleneck: bool = True) -> AnyLayout:
    """The name map of a file of either stage; `stages` and `bottleneck` are those of its ResNet."""
    # Of those that know as many names of a file the first is taken, so those with fewer parts come first.
    choices = itertools.product((False, True), repeat=3)
    return Variants(
        "tvi_lfm",
        tuple(
            layout(stages, bottleneck, text=text, backup=backup, separate_norms=separate_norms)
            for text, backup, separate_norms in choices
        ),
    )


def _visual(stages: tuple[int, ...], bottleneck: bool) -> Layout:
    """The stems of both modalities and the shared stages, in the numbers of ``nn.Sequential``."""
    places = {"conv1": "0", "bn1": "1", **{f"layer{number}": str(number - 1) for number in range(1, len(stages) + 1)}}
    rules = []
    for stream, module in _STREAMS.items():
        for rule in resnet.layout(stages=stages, bottleneck=bottleneck).rules:
            part, rest = rule.source.split(".", 1)
            if part.startswith("layer") != (stream == "shared"):
                continue
            source = f"base_model.visual.{module}.resnet_conv.{places[part]}.{rest}"
            collection, path = rule.target.split("/", 1)
            rules.append(dataclasses.replace(rule, source=source, target=f"{collection}/backbone/{stream}/{path}"))
    return Layout("visual", tuple(rules))


def _head(separate_norms: bool) -> Layout:
    """The batch norm, or one for each kind of feature, and the classifier."""
    norms = {f"bottleneck/{kind}": name for kind, name in NORMS.items()} if separate_norms else {"bottleneck": "BN"}
    rules = [rule for target, source in norms.items() for rule in batch_norm(source, target)]
    return Layout("head", (*rules, *linear("classifier", "classifier", bias=False)))


def _logit_scale(exported: Mapping[str, np.ndarray]) -> np.ndarray:
    dtype = next(iter(exported.values())).dtype
    return np.asarray(LOGIT_SCALE, dtype)
