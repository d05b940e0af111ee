"""CLIP's weights: OpenAI's state_dicts, and those of Hugging Face's ``CLIPModel`` under its own names.

OpenAI's archives, for which the reader of PyTorch files needs no PyTorch, can be given as they were downloaded.

Reference: file ``clip/model.py`` of OpenAI's code; ``modeling_clip.py`` of the transformers library.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping

import numpy as np

from mmreid_jax.convert import resnet
from mmreid_jax.convert.layout import (
    AS_IS,
    LINEAR,
    VECTOR,
    Drop,
    Entries,
    Layout,
    Rule,
    Transform,
    Variants,
    batch_norm,
    conv,
    join,
    linear,
    nest,
    norm,
)
from mmreid_jax.convert.vit import multiply_add, neighbours, resize_position_table
from mmreid_jax.errors import UserError

_TABLE = dataclasses.replace(AS_IS, ndim=2)
# The towers of images have axes of length one in front, as other ViTs have.
_CLASS = Transform(lambda x: x[None, None], lambda x: x[0, 0], ndim=1)
_POSITIONS = Transform(lambda x: x[None], lambda x: x[0], ndim=2)
TOKENS = "token_embedding.tokens"
"""Entry of a text tower that holds the embedding of some tokens alone: their numbers."""
_FACTS = "a number that says how the network is built, which its arrays say as well"
_DROPS = tuple(Drop(name, _FACTS) for name in ("input_resolution", "context_length", "vocab_size"))


def layout(grid: tuple[int, int] | None = None) -> Variants:
    """The name map of a whole CLIP network: ``visual/``, ``text/`` and ``logit_scale``; exported in OpenAI's names.

    Args:
      grid: rows and columns of patches that a ViT's position table is resized to.
    """
    return Variants("clip", (_both_spellings(_whole("clip", vit_layout(grid))), _whole("clip", resnet_layout())))


def hugging_face_layout(grid: tuple[int, int] | None = None) -> Layout:
    """The name map of a whole CLIP network on a ViT, exported in Hugging Face's names; argument as in `layout`."""
    return _both_spellings(_whole("clip_hf", vit_layout(grid)), written=True)


def _whole(name: str, images: Layout) -> Layout:
    scale = Layout("scale", (Rule("logit_scale", "params/logit_scale", dataclasses.replace(AS_IS, ndim=0)),), _DROPS)
    return join(name, nest(text_layout(), target="text/"), scale, nest(images, "visual.", "visual/"))


def text_only(out: int | None = None) -> Layout:
    """The name map of the text tower in the file of a whole network, or of Hugging Face's text tower alone."""
    images = Drop("visual.*", "the tower of images, which is not asked for")
    scale = Drop("logit_scale", "the temperature of image-text pairs, which is not asked for")
    return _both_spellings(dataclasses.replace(text_layout(out), drops=(images, scale, *_DROPS)))


def image_only(grid: tuple[int, int] | None = None, projected: bool = True, class_tokens: int = 1) -> Layout:
    """The name map of the ViT in the file of a whole network, or of Hugging Face's image tower alone.

    Args:
      grid: rows and columns of patches that the position table is resized to.
      projected: the projection of the class token is asked for.
      class_tokens: of the network; each begins with the place of CLIP's one in the position table.
    """
    texts = [
        Drop(pattern, "the tower of texts, which is not asked for")
        for pattern in ("transformer.*", "token_embedding.*", "positional_embedding", "ln_final.*", "text_projection")
    ]
    scale = Drop("logit_scale", "the temperature of image-text pairs, which is not asked for")
    tower = nest(vit_layout(grid, projected, class_tokens), "visual.")
    return _both_spellings(dataclasses.replace(tower, drops=(*tower.drops, *texts, scale, *_DROPS)))


# --------------------------------------------------------------------------------------------------------- towers


def text_layout(out: int | None = None) -> Layout:
    """The name map of a text tower in OpenAI's names, `mmreid_jax.models.clip.TextTower`.

    A tower that has read few words may hold their rows of the embedding alone, see `with_all_tokens`.

    Args:
      out: width of the feature; a projection of another width is stretched to it, see `stretch_projection`.
    """

    def prepare(entries: Entries) -> tuple[Entries, list[str]]:
        entries, notes = with_all_tokens(entries)
        projection = entries.get("text_projection")
        if out is None or projection is None or projection.ndim != 2 or projection.shape[1] == out:
            return entries, notes
        note = f"text_projection stretched from {projection.shape[1]} to {out} channels, and rounded to float16"
        return {**entries, "text_projection": stretch_projection(projection, out)}, [*notes, note]

    rules = (
        Rule("positional_embedding", "params/pos_embed", _TABLE),
        Rule("text_projection", "params/proj", _TABLE),
        *_blocks("transformer.resblocks.{i}.", "blocks/"),
        Rule("token_embedding.weight", "params/token_embed", _TABLE),
        *norm("ln_final", "norm"),
    )
    return Layout("clip_text", rules, prepare=prepare)


def vit_layout(grid: tuple[int, int] | None = None, projected: bool = True, class_tokens: int = 1) -> Layout:
    """The name map of a ViT, without ``visual.``: `mmreid_jax.models.vit.VisionTransformer` of a size ``clip_*``.

    Args:
      grid: rows and columns of patches of the images to embed; the position table is resized to it.
      projected: the network projects the class token; otherwise the projection is dropped.
      class_tokens: that the network has where the file has one; the row of this one is repeated for all.
    """

    def prepare(entries: Entries) -> tuple[Entries, list[str]]:
        table, notes = entries.get("positional_embedding"), []
        if table is None or table.ndim != 2:
            return entries, []
        if grid is not None and len(table) != 1 + grid[0] * grid[1]:
            old = math.isqrt(len(table) - 1)
            table = resize_position_table(table[None], grid)[0]
            notes = [f"the position table of images resized from {old}x{old} to {grid[0]}x{grid[1]}"]
        if class_tokens > 1:
            table = np.concatenate([np.repeat(table[:1], class_tokens, axis=0), table[1:]])
            notes.append(f"the class token's row of the position table repeated for {class_tokens} of them")
        return {**entries, "positional_embedding": table}, notes

    projection = (Rule("proj", "params/proj", _TABLE),) if projected else ()
    drops = () if projected else (Drop("proj", "the projection to the space of texts, which is not asked for"),)
    # Side information of cameras and views, which re-identification adds.
    local = (Drop("params/sie_embed", "side information, which no CLIP file holds"),)
    rules = (
        Rule("class_embedding", "params/cls_token", _CLASS),
        Rule("positional_embedding", "params/pos_embed", _POSITIONS),
        *projection,
        *conv("conv1", "patch_embed"),
        *norm("ln_pre", "norm_pre"),
        *_blocks("transformer.resblocks.{i}.", "blocks/"),
        *norm("ln_post", "norm"),
    )
    return Layout("clip_vit", rules, drops, local, prepare)


def resnet_layout(places: int | None = None, out: int | None = None) -> Layout:
    """The name map of a ResNet, without ``visual.``: `mmreid_jax.models.clip.ResNetTower`.

    Args:
      places: rows times columns of the feature maps; a position table of another length is stretched to 1 + that.
        Parity: TVI-LFM's loader, which resizes it as if it were a line.
      out: width of the feature; a projection of another width is stretched to it, as TVI-LFM's loader does.
    """

    def prepare(entries: Entries) -> tuple[Entries, list[str]]:
        made, notes = dict(entries), []

        def change(name: str, length: int | None, resize: Callable[[np.ndarray, int], np.ndarray]) -> None:
            table = entries.get(f"attnpool.{name}")
            if length is not None and table is not None and table.ndim > 0 and len(table) != length:
                made[f"attnpool.{name}"] = resize(table, length)
                notes.append(f"attnpool.{name} stretched from {len(table)} to {length}")

        change("positional_embedding", None if places is None else 1 + places, stretch)
        change("c_proj.weight", out, lambda table, length: stretch_projection(table.T, length).T)
        change("c_proj.bias", out, lambda table, length: stretch_projection(table[None], length)[0])
        return made, notes

    stem = [rule for i in (1, 2, 3) for rule in (*conv(f"conv{i}", f"conv{i}"), *batch_norm(f"bn{i}", f"bn{i}"))]
    stages = [rule for rule in resnet.layout().rules if rule.source.startswith("layer")]
    network = nest(Layout("resnet", (*stem, *stages)), target="resnet/")
    pool = [Rule("positional_embedding", "params/pos_embed", _TABLE)]
    for theirs, ours in (("k_proj", "k"), ("q_proj", "q"), ("v_proj", "v"), ("c_proj", "proj")):
        pool += linear(theirs, ours)
    pooling = nest(Layout("attnpool", tuple(pool)), "attnpool.", "attnpool/")
    return dataclasses.replace(join("clip_resnet", network, pooling), prepare=prepare)


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


# -------------------------------------------------------------------------------------------- Hugging Face's names

# OpenAI's name -> Hugging Face's, for names or beginnings of names; those that end in a dot go on in the same way.
_TOWERS = {
    "token_embedding.": "text_model.embeddings.token_embedding.",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.": "text_model.final_layer_norm.",
    "text_projection": "text_projection.weight",
    "visual.conv1.": "vision_model.embeddings.patch_embedding.",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.": "vision_model.pre_layrnorm.",
    "visual.ln_post.": "vision_model.post_layernorm.",
    "visual.proj": "visual_projection.weight",
    "transformer.resblocks.": "text_model.encoder.layers.",
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
}
# Inside of a block.
_INSIDE = {
    "ln_1.": "layer_norm1.",
    "ln_2.": "layer_norm2.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
    "attn.out_proj.": "self_attn.out_proj.",
}
_FROM_TOWERS = {new: old for old, new in _TOWERS.items()}
_FROM_INSIDE = {new: old for old, new in _INSIDE.items()}
# Linear layers there, products from the right here.
_TRANSPOSED = ("text_projection", "visual.proj")
_JOINED = re.compile(r"(?P<block>.*\.)attn\.in_proj_(?P<kind>weight|bias)")
_THIRDS = re.compile(r"(?P<block>.*\.)self_attn\.(?P<third>[qkv])_proj\.(?P<kind>weight|bias)")


def _is_hugging_face(entries: Entries) -> bool:
    return any(name.startswith(("text_model.", "vision_model.")) for name in entries)


def from_hugging_face(entries: Entries) -> Entries:
    """The same weights under OpenAI's names; unknown names stay as they are.

    Raises:
      UserError: of the queries, keys and values of a block some are missing.
    """
    made: Entries = {}
    for name, value in entries.items():
        match = _THIRDS.fullmatch(name)
        if not match:
            renamed = _renamed(name, _FROM_TOWERS, _FROM_INSIDE)
            made[renamed] = value.T if renamed in _TRANSPOSED else value
            continue
        thirds = [f"{match['block']}self_attn.{third}_proj.{match['kind']}" for third in "qkv"]
        missing = [third for third in thirds if third not in entries]
        if missing:
            raise UserError(f"the file has {name}, but lacks {missing[0]}; copy or download it again")
        if match["third"] == "q":
            joined = f"{_renamed(match['block'], _FROM_TOWERS, {})}attn.in_proj_{match['kind']}"
            made[joined] = np.concatenate([entries[third] for third in thirds])
    return made


def to_hugging_face(entries: Entries) -> Entries:
    """The same weights under the names of Hugging Face's ``CLIPModel``: the inverse of `from_hugging_face`."""
    made: Entries = {}
    for name, value in entries.items():
        match = _JOINED.fullmatch(name)
        if not match:
            made[_renamed(name, _TOWERS, _INSIDE)] = np.ascontiguousarray(value.T) if name in _TRANSPOSED else value
            continue
        block = _renamed(match["block"], _TOWERS, {})
        for third, part in zip("qkv", np.split(value, 3), strict=True):
            made[f"{block}self_attn.{third}_proj.{match['kind']}"] = part
    return made


def _renamed(name: str, towers: Mapping[str, str], inside: Mapping[str, str]) -> str:
    """The name with its beginning replaced, and what follows the number of a block."""
    for old, new in towers.items():
        if name == old or (old.endswith(".") and name.startswith(old)):
            rest = name[len(old) :]
            number, dot, layer = rest.partition(".")
            if number.isdigit():
                rest = (
                    number + dot + next((y + layer[len(x) :] for x, y in inside.items() if layer.startswith(x)), layer)
                )
            return new + rest
    return name


def _both_spellings(layout: Layout, written: bool = False) -> Layout:
    """A layout in OpenAI's names that reads Hugging Face's as well, and with `written` writes them."""

    def prepare(entries: Entries) -> tuple[Entries, list[str]]:
        notes = []
        if _is_hugging_face(entries):
            entries, notes = from_hugging_face(entries), ["Hugging Face's names, read as OpenAI's"]
        if layout.prepare:
            entries, more = layout.prepare(entries)
            notes += more
        return entries, notes

    drops = (*layout.drops, Drop("*.position_ids", "the numbers from 0 on, in old files"))
    return dataclasses.replace(layout, prepare=prepare, drops=drops, finish=to_hugging_face if written else None)


# ------------------------------------------------------------------------------------------------------- resizing


def with_all_tokens(entries: Entries) -> tuple[Entries, list[str]]:
    """The entries with an embedding of every token, and what was done.

    Where ``token_embedding.tokens`` [n] is beside ``token_embedding.weight`` [n, D], these are the rows of the tokens
    of these numbers, among ``vocab_size`` (CLIP's name for it); all others get zeros: a word that was never read says
    nothing.

    Raises:
      UserError: the numbers and the rows do not go together.
    """
    if TOKENS not in entries:
        return entries, []
    tokens, rows, size = (entries.get(name) for name in (TOKENS, "token_embedding.weight", "vocab_size"))
    if tokens is None or rows is None or size is None or rows.ndim != 2 or tokens.shape != rows.shape[:1]:
        raise UserError(f"{TOKENS} needs vocab_size and as many rows of token_embedding.weight; copy the file again")
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < size:
        raise UserError(f"{TOKENS} names tokens beyond the {int(size)} of vocab_size; copy the file again")
    table = np.zeros((int(size), rows.shape[1]), rows.dtype)
    table[tokens] = rows
    rest = {name: value for name, value in entries.items() if name != TOKENS}
    return {**rest, "token_embedding.weight": table}, [f"{len(tokens)} of {int(size)} tokens have an embedding"]


def stretch(table: np.ndarray, length: int) -> np.ndarray:
    """Resizes the first axis linearly, with half-pixel centres and without antialiasing: [N, ...] -> [length, ...].

    To the bit as PyTorch's CPU kernels, in their precision: float32 for tables of 32 and of 16 bits.
    """
    # Half precision has too few bits for the weights.
    dtype = np.dtype(np.float64 if table.dtype == np.float64 else np.float32).type
    wide = table.astype(dtype)
    first, second, nearer, farther = neighbours(len(table), length, dtype)
    shape = (length, *[1] * (table.ndim - 1))
    resized = multiply_add(nearer.reshape(shape), wide[first], farther.reshape(shape) * wide[second])
    return resized.astype(table.dtype)


def stretch_projection(projection: np.ndarray, width: int) -> np.ndarray:
    """A projection [I, O] with its outputs stretched to [I, width] and rounded to float16, in its own dtype.

    Parity: TVI-LFM's loader; its published networks start from CLIP's projection stretched in this way.
    """
    return stretch(projection.T, width).T.astype(np.float16).astype(projection.dtype)
