"""ImageNet weights of Vision Transformers in timm's names (``jx_vit_base_p16_224``), as TransReID and HTT load them.

Reference: ``load_param`` and ``resize_pos_embed`` in ``model/backbones/vit_pytorch.py`` of TransReID and HTT.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from mmreid_jax.convert.layout import AS_IS, VECTOR, Drop, Entries, Layout, Rule, conv, linear, norm
from mmreid_jax.errors import UserError

_TABLE = dataclasses.replace(AS_IS, ndim=3)
_TOKENS: tuple[Rule, ...] = (
    Rule("cls_token", "params/cls_token", _TABLE),
    Rule("pos_embed", "params/pos_embed", _TABLE),
)
# Side information of cameras and views: in trained files, never in ImageNet's.
_SIDE = Rule("sie_embed", "params/sie_embed", _TABLE, optional="side")
_NETWORK: tuple[Rule, ...] = (
    *conv("patch_embed.proj", "patch_embed", bias=True),
    *norm("blocks.{i}.norm1", "blocks/norm1"),
    *linear("blocks.{i}.attn.qkv", "blocks/attn/qkv", bias=False),
    Rule("blocks.{i}.attn.qkv.bias", "params/blocks/attn/qkv/bias", VECTOR, optional="bias"),
    *linear("blocks.{i}.attn.proj", "blocks/attn/proj"),
    *norm("blocks.{i}.norm2", "blocks/norm2"),
    *linear("blocks.{i}.mlp.fc1", "blocks/mlp/fc1"),
    *linear("blocks.{i}.mlp.fc2", "blocks/mlp/fc2"),
    *norm("norm", "norm"),
)
DROPS: tuple[Drop, ...] = (
    Drop("*head*", "ImageNet classifier, re-identification has its own"),
    Drop("*dist*", "distillation token and classifier, not part of the backbone"),
    Drop("fc.*", "ImageNet classifier, re-identification has its own"),
    Drop("pre_logits.*", "belongs to the ImageNet classifier"),
)


def layout(
    grid: tuple[int, int] | None = None,
    distilled: bool | None = None,
    trained: bool = False,
    class_tokens: int = 1,
) -> Layout:
    """The name map of a ViT.

    Args:
      grid: rows and columns of patches of the images to embed; the position table is resized to it. None: the table
        must fit as it is (a count of tokens alone does not tell a standing from a lying grid).
      distilled: row 1 of the position table belongs to a distillation token and is removed; None: it does where the
        file holds ``dist_token``.
      trained: the backbone of a trained network: its side information is read, and nothing is dropped.
      class_tokens: that the network has where the file has one; the row of this one is repeated for all.
    """

    def prepare(entries: Entries) -> tuple[Entries, list[str]]:
        made, notes = _prepare(entries, grid, distilled)
        table = made.get("pos_embed")
        if class_tokens > 1 and table is not None and table.ndim == 3:
            made["pos_embed"] = np.concatenate([np.repeat(table[:, :1], class_tokens, axis=1), table[:, 1:]], axis=1)
            notes.append(f"the class token's row of pos_embed repeated for {class_tokens} of them")
        return made, notes

    if trained:
        return Layout("vit", (*_TOKENS, _SIDE, *_NETWORK), prepare=prepare)
    local = (Drop("params/sie_embed", "side information, which no ImageNet file holds"),)
    return Layout("vit", (*_TOKENS, *_NETWORK), DROPS, local, prepare)


def _prepare(entries: Entries, grid: tuple[int, int] | None, distilled: bool | None) -> tuple[Entries, list[str]]:
    """Makes patch weights 4-D, removes the distillation row and resizes the position table."""
    out, notes = dict(entries), []
    weight = entries.get("patch_embed.proj.weight")
    if weight is not None and weight.ndim == 2:
        side = math.isqrt(weight.shape[1] // 3)
        if 3 * side * side != weight.shape[1]:
            raise UserError(f"patch_embed.proj.weight is {list(weight.shape)}: its rows are no square RGB patches")
        out["patch_embed.proj.weight"] = weight.reshape(len(weight), 3, side, side)
        notes.append(f"patch_embed.proj.weight {list(weight.shape)} read as {side}x{side} patches")
    table = entries.get("pos_embed")
    if table is None or table.ndim != 3:
        return out, notes
    if distilled or (distilled is None and "dist_token" in entries):
        table = np.delete(table, 1, axis=1)
        notes.append("row 1 of pos_embed removed: it belongs to the distillation token")
    if grid is not None and table.shape[1] != 1 + grid[0] * grid[1]:
        old = math.isqrt(table.shape[1] - 1)
        table = resize_position_table(table, grid)
        notes.append(f"pos_embed resized from {old}x{old} to {grid[0]}x{grid[1]}")
    out["pos_embed"] = table
    return out, notes


def resize_position_table(table: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Resizes the grid rows of a position table bilinearly, with half-pixel centres and without antialiasing.

    Tables of 32 and of 16 bits are resized in float32 in the order of PyTorch's CPU kernels, and give their numbers to
    the bit (where the width is a multiple of eight, as all real ones are). The two kernels add up in different orders,
    and 16 bits show it: near the middle of two of their numbers one order rounds up and the other down.

    Args:
      table: [1, 1 + n * n, D]; row 0 belongs to the class token and is kept.
      grid: rows and columns wanted.

    Returns:
      [1, 1 + rows * columns, D] in the dtype of the table.

    Raises:
      UserError: the table is no square grid.
    """
    side = math.isqrt(max(table.shape[1] - 1, 0))
    if not side or side * side != table.shape[1] - 1:
        raise UserError(
            f"pos_embed cannot be resized: below the class token's row it has {table.shape[1] - 1} rows, which form no "
            f"square grid; give weights trained on square images, or images of the size that they were trained on"
        )
    # Half precision has too few bits for the weights.
    dtype = np.dtype(np.float64 if table.dtype == np.float64 else np.float32).type
    square = table[0, 1:].astype(dtype).reshape(side, side, -1)
    top, bottom, upper, lower = neighbours(side, grid[0], dtype)
    left, right, nearer, farther = neighbours(side, grid[1], dtype)
    upper, lower = upper[:, None, None], lower[:, None, None]
    nearer, farther = nearer[None, :, None], farther[None, :, None]
    near, far = (lower * nearer, bottom, left), (lower * farther, bottom, right)
    start, then = (far, near) if table.dtype.itemsize == 2 else (near, far)
    weight, rows, columns = start
    out = weight * square[rows][:, columns]
    for weight, rows, columns in (then, (upper * farther, top, right), (upper * nearer, top, left)):
        out = multiply_add(weight, square[rows][:, columns], out)
    resized = out.reshape(1, -1, table.shape[2]).astype(table.dtype)
    return np.concatenate([table[:, :1], resized], axis=1)


def neighbours(old: int, new: int, dtype: type) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Indices of both neighbours on the old axis and their weights, for each place of the new axis."""
    scale = np.float64(dtype(old) / dtype(new))
    place = np.maximum((scale * (np.arange(new) + 0.5) - 0.5).astype(dtype), dtype(0))
    first = np.minimum(place.astype(np.int64), old - 1)
    weight = np.clip(place - first.astype(dtype), dtype(0), dtype(1))
    return first, np.minimum(first + 1, old - 1), dtype(1) - weight, weight


def multiply_add(weight: np.ndarray, value: np.ndarray, addend: np.ndarray) -> np.ndarray:
    """``weight * value + addend``, for float32 with a single rounding as the fused instruction has."""
    wide = weight.astype(np.float64) * value.astype(np.float64) + addend.astype(np.float64)
    return wide.astype(addend.dtype)
