"""The text towers of CLIP. Its image towers are `mmreid_jax.models.vit` (ViT) and `mmreid_jax.models.clip_resnet`.

Reference: Radford et al. 2021 (CLIP), file ``clip/model.py`` of OpenAI's code.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmreid_jax.models.layers import project
from mmreid_jax.models.vit import ViTSize, blocks, layer_norm

Array = jax.Array
Dtype = Any

TEXT_TOWERS: dict[str, dict[str, int]] = {
    "clip_rn50": {"width": 512, "depth": 12, "heads": 8, "out": 1024},
    "clip_vit_b16": {"width": 512, "depth": 12, "heads": 8, "out": 512},
    # For drawn data, and for tests.
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
