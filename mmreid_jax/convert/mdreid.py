"""Trained networks of MDReID (NeurIPS 2025): the authors' plain state_dicts, ``MDReIDbest.pth``.

DeMo's trunk with a second class token, which is the same parameter as the first and stands in a file twice. Of the
three heads on specific and shared features together that files have, one is run and two never are. Reference:
``modeling/make_model.py`` of the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmreid_jax.convert.demo_moe import MODALITIES, neck, trunk
from mmreid_jax.convert.layout import AnyLayout, Drop, Layout, batch_norm, join, linear, unused

_TOKEN = "the same parameter as class_embedding; written again on export"
_UNUSED = "the reference creates it and never uses it; written as a copy of another head on export"
_CLASS, _SHARED = "BACKBONE.base.class_embedding", "BACKBONE.base.add_image_token"


def layout(modalities: Sequence[str] = MODALITIES) -> AnyLayout:
    """The name map of a trained network; `modalities`: names in order."""
    first, *others = (f"_{name[0]}s" for name in modalities)
    heads = [neck(f"_{name[0]}", name) for name in modalities]
    return join(
        "mdreid",
        trunk(),
        Layout("token", (), (Drop(_SHARED, _TOKEN, lambda exported: exported[_CLASS]),)),
        *heads,
        neck("_s", "shared"),
        neck(first, "both"),
        *(_unused(suffix, first) for suffix in others),
    )


def _unused(suffix: str, like: str) -> Layout:
    """A head that no computation uses, by the end of its name; written as a copy of another one."""
    classifier = unused(Layout("", linear("", "", bias=False)), f"classifier{suffix}", _UNUSED, f"classifier{like}")
    return join(
        "", classifier, unused(Layout("", batch_norm("", "")), f"bottleneck{suffix}", _UNUSED, f"bottleneck{like}")
    )
