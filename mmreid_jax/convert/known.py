"""The layouts that can be asked for by name, on the command line and in converted directories."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from mmreid_jax.convert.layout import AnyLayout
from mmreid_jax.errors import UserError, printable

# Name -> module and the function in it that builds the layout. A new family is one line here.
LAYOUTS: dict[str, tuple[str, str]] = {
    "vit": ("mmreid_jax.convert.vit", "layout"),
    "resnet": ("mmreid_jax.convert.resnet", "layout"),
    "resnet50": ("mmreid_jax.convert.resnet", "layout50"),
    "clip": ("mmreid_jax.convert.clip", "layout"),
    "clip_hf": ("mmreid_jax.convert.clip", "hugging_face_layout"),
    "htt": ("mmreid_jax.convert.htt", "layout"),
    "ieee": ("mmreid_jax.convert.ieee", "layout"),
    "agw": ("mmreid_jax.convert.two_stream", "layout"),
    "ddag": ("mmreid_jax.convert.ddag", "layout"),
    "deen": ("mmreid_jax.convert.deen", "layout"),
    "demo_moe": ("mmreid_jax.convert.demo_moe", "layout"),
    "mdreid": ("mmreid_jax.convert.mdreid", "layout"),
    "mmgl": ("mmreid_jax.convert.mmgl", "any_layout"),
    "tvi_lfm": ("mmreid_jax.convert.tvi_lfm", "any_layout"),
    "hetero_center": ("mmreid_jax.convert.hetero_center", "layout"),
}
# Layouts that can resize a position table to a `grid` of patches.
RESIZABLE = frozenset({"vit", "htt", "clip", "clip_hf"})
# Key of the state_dict in the authors' files, and what lies beside it; families not named here keep it bare.
WRAPPED: dict[str, tuple[str, tuple[str, ...]]] = {
    "agw": ("net", ("epoch",)),
    "ddag": ("net", ("epoch",)),
    "deen": ("net", ("epoch",)),
    "hetero_center": ("net", ("epoch",)),
    "ieee": ("state_dict", ("epoch",)),
}


def of_run(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The layout of the models that a config trains, and the options that it needs.

    Raises:
      UserError: the config names no method with a layout.
    """
    method = str(config.get("method"))
    # CAJ trains AGW's network.
    name = "agw" if method == "caj" else method
    if name not in LAYOUTS:
        raise UserError(
            f"there is no layout for the method {printable(method)!r}; give --layout, one of {', '.join(LAYOUTS)}"
        )
    dropout = config.get("model", {}).get("dropout", 0) if name == "hetero_center" else 0
    return name, {"dropout": True} if dropout else {}


def named(name: str, **options: Any) -> AnyLayout:
    """The layout of that name.

    Args:
      name: a key of `LAYOUTS`.
      **options: of its building function.

    Raises:
      UserError: there is no such layout; the line names the nearest.
    """
    if name not in LAYOUTS:
        near = difflib.get_close_matches(name, LAYOUTS, 1, 0.0)[0]
        raise UserError(f"there is no layout {name!r}, perhaps {near!r} is meant; known are {', '.join(LAYOUTS)}")
    module, function = LAYOUTS[name]
    return getattr(importlib.import_module(module), function)(**options)
