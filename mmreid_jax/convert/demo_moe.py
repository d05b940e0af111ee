"""Trained networks of DeMo (AAAI 2025): the authors' plain state_dicts, ``DeMobest.pth``.

The trunk is CLIP's image tower with its own names below ``BACKBONE.base.``. Files hold one joint head of the features
of all modalities (RGBNT201) or a head for each (RGBNT100, MSVR310). Whether patches stand 16x8 or 8x16 they do not say.
Reference: ``modeling/make_model.py`` and ``modeling/fusion_part`` of the authors' code.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from mmreid_jax.convert import clip
from mmreid_jax.convert.layout import (
    AS_IS,
    LINEAR,
    VECTOR,
    AnyLayout,
    Layout,
    Rule,
    Transform,
    Variants,
    batch_norm,
    join,
    linear,
    nest,
    norm,
)

MODALITIES = ("rgb", "nir", "tir")
_QUERY = Transform(lambda x: x[0, 0], lambda x: x[None, None], ndim=3)


def layout(joint: bool | None = None, modalities: Sequence[str] = MODALITIES) -> AnyLayout:
    """The name map of a trained network.

    Args:
      joint: one head for the features of all modalities; None: whichever the file has.
      modalities: names in order.
    """
    if joint is not None:
        return _layout(joint, modalities)
    return Variants("demo_moe", (_layout(True, modalities), _layout(False, modalities)))


def _layout(joint: bool, modalities: Sequence[str]) -> Layout:
    heads = [neck("_moe", "mixture")]
    heads += [neck("", "global")] if joint else [neck(f"_{name[0]}", name) for name in modalities]
    return join("demo_moe", trunk(), fusion(modalities), *heads)


def trunk() -> Layout:
    """The name map of the trunk of a trained network: ``backbone/``."""
    tower = dataclasses.replace(clip.vit_layout(), local=(), prepare=None)
    cameras = Rule("BACKBONE.cv_embed", "params/backbone/sie_embed", dataclasses.replace(AS_IS, ndim=3))
    return join("trunk", Layout("cameras", (cameras,)), nest(tower, "BACKBONE.base.", "backbone/"))


def neck(suffix: str, name: str) -> Layout:
    """The name map of a batch norm and its classifier, ``necks/<name>/``; `suffix` of the authors' names."""
    rules = (
        *linear(f"classifier{suffix}", f"necks/{name}/classifier", bias=False),
        *batch_norm(f"bottleneck{suffix}", f"necks/{name}/bottleneck"),
    )
    return Layout("neck", rules)


def fusion(modalities: Sequence[str]) -> Layout:
    """The name map of the layers on the tokens of the trunk: ``fusion/``."""
    rules: list[Rule] = []
    for name in modalities:
        rules += norm(f"{name}_reduce.0", f"fusion/reduce_{name}/norm")
        rules += linear(f"{name}_reduce.1", f"fusion/reduce_{name}/project")
    sizes = range(1, len(modalities) + 1)
    for chosen in itertools.chain.from_iterable(itertools.combinations(modalities, size) for size in sizes):
        theirs = f"generalFusion.{''.join(name[0] for name in chosen)}"
        ours = f"fusion/query_{'_'.join(chosen)}"
        rules += [
            Rule(f"{theirs}_token", f"params/{ours}/query", _QUERY),
            Rule(f"{theirs}.in_proj_weight", f"params/{ours}/kernel", LINEAR),
            Rule(f"{theirs}.in_proj_bias", f"params/{ours}/bias", VECTOR),
            *linear(f"{theirs}.out_proj", f"{ours}/proj"),
        ]
    expert = "generalFusion.moe.experts.{head}.expertHead.{kind}.mlp"
    gate = "generalFusion.moe.gating_network.gate"
    rules += linear(f"{expert}.0", "fusion/mixture/experts/project")
    rules += batch_norm(f"{expert}.2", "fusion/mixture/experts/norm")
    rules += linear(f"{gate}.linear_re.0", "fusion/mixture/reduce")
    rules += batch_norm(f"{gate}.linear_re.2", "fusion/mixture/norm")
    rules += linear(f"{gate}.q_", "fusion/mixture/query", bias=False)
    rules += linear(f"{gate}.k_", "fusion/mixture/key", bias=False)
    return Layout("fusion", tuple(rules))
