"""CLIP's weights: OpenAI's state_dicts, with names of their own for the towers of texts and of images.

Reference: file ``clip/model.py`` of OpenAI's code.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mmreid_jax.convert.layout import AS_IS, LINEAR, VECTOR, Entries, Layout, Rule, linear, norm
from mmreid_jax.convert.vit import neighbours

_TABLE = dataclasses.replace(AS_IS, ndim=2)


def text_layout(out: int | None = None) -> Layout:
    """The name map of a text tower, `mmreid_jax.models.clip.TextTower`.

    Args:
      out: width of the feature; a projection of another width is stretched to it, see `stretch_projection`.
    """

    def prepare(entries: Entries) -> tuple[Entries, list[str]]:
        projection = entries.get("text_projection")
        if out is None or projection is None or projection.ndim != 2 or projection.shape[1] == out:
            return entries, []
        note = f"text_projection stretched from {projection.shape[1]} to {out} channels, and rounded to float16"
        return {**entries, "text_projection": stretch_projection(projection, out)}, [note]

    rules = (
        Rule("positional_embedding", "params/pos_embed", _TABLE),
        Rule("text_projection", "params/proj", _TABLE),
        *_blocks("transformer.resblocks.{i}.", "blocks/"),
        Rule("token_embedding.weight", "params/token_embed", _TABLE),
        *norm("ln_final", "norm"),
    )
    return Layout("clip_text", rules, prepare=prepare)


def _blocks(source: str, target: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{source}attn.in_proj_weight", f"params/{target}attn/qkv/kernel", LINEAR),
        Rule(f"{source}attn.in_proj_bias", f"params/{target}attn/qkv/bias", VECTOR),
        *linear(f"{source}attn.out_proj", f"{target}attn/proj"),
        *norm(f"{source}ln_1", f"{target}norm1"),
        *linear(f"{source}mlp.c_fc", f"{target}mlp/fc1"),
        *linear(f"{source}mlp.c_proj", f"{target}mlp/fc2"),
        *norm(f"{source}ln_2", f"{target}norm2"),
    )


# ------------------------------------------------------------------------------------------------------- resizing


def stretch(table: np.ndarray, length: int) -> np.ndarray:
    """Resizes the first axis linearly, with half-pixel centres and without antialiasing: [N, ...] -> [length, ...]."""
    # Half precision has too few bits for the weights.
    dtype = np.dtype(np.float64 if table.dtype == np.float64 else np.float32).type
    wide = table.astype(dtype)
    first, second, nearer, farther = neighbours(len(table), length, dtype)
    shape = (length, *[1] * (table.ndim - 1))
    resized = nearer.reshape(shape) * wide[first] + farther.reshape(shape) * wide[second]
    return resized.astype(table.dtype)


def stretch_projection(projection: np.ndarray, width: int) -> np.ndarray:
    """A projection [I, O] with its outputs stretched to [I, width] and rounded to float16, in its own dtype.

    Parity: TVI-LFM's loader; its published networks start from CLIP's projection stretched in this way.
    """
    return stretch(projection.T, width).T.astype(np.float16).astype(projection.dtype)
