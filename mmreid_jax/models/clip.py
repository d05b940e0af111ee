"""CLIP: networks that embed images and texts in one space.

Its ViT image towers are `mmreid_jax.models.vit.VisionTransformer` of the sizes ``clip_*``; here are the text towers and
the ResNet image towers.

Reference: Radford et al. 2021 (CLIP), file ``clip/model.py`` of OpenAI's code.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmreid_jax.models.layers import attention_weights, join_heads, project
from mmreid_jax.models.resnet import STAGES, ResNet
from mmreid_jax.models.vit import ViTSize, blocks, layer_norm

Array = jax.Array
Dtype = Any

TEXT_TOWERS: dict[str, dict[str, int]] = {
    "clip_rn50": {"width": 512, "depth": 12, "heads": 8, "out": 1024},
    "clip_vit_b16": {"width": 512, "depth": 12, "heads": 8, "out": 512},
    # For drawn data beside a ResNet of the width of resnet_mini, and for tests.
    "text_mini": {"width": 64, "depth": 2, "heads": 4, "out": 512},
    "text_micro": {"width": 64, "depth": 2, "heads": 4, "out": 64},
}
"""Name -> sizes; the whole ones are called by the network whose image tower they go with."""


class TextTower(nn.Module):
    """Token numbers of a text -> its feature: causal pre-norm blocks, read at the end mark, projected.

    Attributes:
      width, depth, heads: of the blocks.
      vocabulary: number of tokens.
      length: tokens of the longest text.
      out: width of the feature.
      dtype: type of the computation (None: that of the parameters). Softmax and layer norms stay in float32.
      remat: recompute the blocks in the backward pass.
      implementation: of the attention, as in `mmreid_jax.models.vit.VisionTransformer`.
    """

    width: int = 512
    depth: int = 12
    heads: int = 8
    vocabulary: int = 49408
    length: int = 77
    out: int = 2048
    dtype: Dtype = None
    remat: bool = False
    implementation: Any = "plain"

    @property
    def size(self) -> ViTSize:
        """The sizes in the form of the blocks."""
        return ViTSize(self.width, self.depth, self.heads, clip=True)

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        """Features of texts.

        Args:
          tokens: int32 [B, L], L at most `length`, of `mmreid_jax.data.tokenizer.tokenize`. What follows the end mark
            is not seen.

        Returns:
          [B, out], not normalised.
        """
        normal = nn.initializers.normal
        table = self.param("token_embed", normal(0.02), (self.vocabulary, self.width))
        position = self.param("pos_embed", normal(0.01), (self.length, self.width))
        kernel = self.param("proj", normal(self.width**-0.5), (self.width, self.out))
        x, position = table[tokens], position[: tokens.shape[1]]
        x, position, kernel = nn.dtypes.promote_dtype(x, position, kernel, dtype=self.dtype)
        x = x + position
        network = blocks(self.size, self.dtype, implementation=self.implementation, remat=self.remat, causal=True)
        x, _ = network(x, None)
        # The end mark has the highest number; the first of several is the one.
        end = tokens.argmax(axis=1)
        feature = jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]
        return project(layer_norm(self.size, "norm", self.dtype)(feature), kernel)


class AttentionPool(nn.Module):
    """Feature maps -> features: attention of their mean over itself and all places, each with its position.

    Attributes:
      heads: of the attention.
      out: width of the features.
    """

    heads: int
    out: int

    @nn.compact
    def __call__(self, maps: Array) -> Array:
        """[B, h, w, C] -> [B, out]; the table of positions is for maps of one size."""
        batch, rows, columns, width = maps.shape
        normal = nn.initializers.normal(width**-0.5)
        position = self.param("pos_embed", normal, (1 + rows * columns, width))
        x = maps.reshape(batch, -1, width)
        x = jnp.concatenate([x.mean(1, keepdims=True), x], axis=1) + position.astype(maps.dtype)

        def heads(name: str, tokens: Array) -> Array:
            y = nn.Dense(width, dtype=maps.dtype, kernel_init=normal, name=name)(tokens)
            return y.reshape(batch, -1, self.heads, width // self.heads).swapaxes(1, 2)

        q, k, v = heads("q", x[:, :1]), heads("k", x), heads("v", x)
        weights = attention_weights(q, k, (width // self.heads) ** -0.5).astype(v.dtype)
        pooled = join_heads(jnp.einsum("bhqk,bhkd->bhqd", weights, v))[:, 0]
        return nn.Dense(self.out, dtype=maps.dtype, kernel_init=normal, name="proj")(pooled)


class ResNetTower(nn.Module):
    """Images -> features: a ResNet in CLIP's form and an attention pooling.

    Attributes:
      out: width of the features.
      heads: of the attention pooling.
      stages: blocks per stage.
      width: channels of the first stage.
      dtype: type of the computation (None: that of parameters and images).
      remat: recompute the blocks in the backward pass.
    """

    out: int = 1024
    heads: int = 32
    stages: tuple[int, ...] = STAGES
    width: int = 64
    dtype: Dtype = None
    remat: bool = False

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Array:
        """[B, H, W, 3], normalised -> [B, out]; the table of positions is for images of one size."""
        form: dict[str, Any] = {"stem": "clip", "last_stride": 2, "dtype": self.dtype, "remat": self.remat}
        maps: Any = ResNet(self.stages, self.width, name="resnet", **form)(images, train)
        return AttentionPool(self.heads, self.out, name="attnpool")(maps)


def similarity(images: Array, texts: Array, logit_scale: Array | float) -> Array:
    """How well texts describe images: cosines times exp(`logit_scale`), CLIP's logits.

    Args:
      images: features [I, D].
      texts: features [T, D].
      logit_scale: CLIP's parameter of that name.

    Returns:
      [I, T]; the softmax of a row says which of the texts describes the image.
    """
    directions = [features / jnp.linalg.norm(features, axis=-1, keepdims=True) for features in (images, texts)]
    return jnp.exp(logit_scale) * directions[0] @ directions[1].T
