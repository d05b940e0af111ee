"""Intra-modality weighted-part attention: horizontal parts of an image that attend to one another (DDAG).

Reference: Ye et al. 2020 (DDAG, ECCV), section "Intra-modality Weighted-Part Aggregation", and the authors' code,
which differs from it in where the residual enters.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmreid_jax.models.layers import Linear, TorchBatchNorm, near_one
from mmreid_jax.models.resnet import part_pool

Array = jax.Array


class WeightedParts(nn.Module):
    """Adds to a feature the gated sum of its image's parts, each refined by attention over all of them.

    Parts are pooled (adaptive average) and have a query, a key and a value. With refined_i = sum_j softmax_j(q_i . k_j)
    v_j, without scaling, and s = sum_i softmax(gate)_i refined_i, the output is the batch norm of s + feature. Without
    scaling the softmax may be near a tie of large numbers, where it magnifies float32 rounding (docs/results.md).

    Attributes:
      parts: number of horizontal parts.
    """

    parts: int = 3

    @nn.compact
    def __call__(self, maps: Array, features: Array, train: bool) -> Array:
        """Refines features.

        Args:
          maps: [B, h, w, C].
          features: [B, C], the feature after the neck.
          train: normalise by batch statistics and update the running ones.

        Returns:
          [B, C].
        """
        width = maps.shape[-1]
        pooled = part_pool(maps.astype(jnp.promote_types(maps.dtype, jnp.float32)), self.parts)
        query, key, value = (Linear(width, name=name)(pooled) for name in ("query", "key", "value"))
        attention = nn.softmax(jnp.einsum("bqc,bkc->bqk", query, key))
        gate = self.param("gate", nn.initializers.constant(1.0 / self.parts), (self.parts,))
        refined = jnp.einsum("q,bqk,bkc->bc", nn.softmax(gate), attention, value)
        return TorchBatchNorm(scale_init=near_one, name="bottleneck")(refined + features, train)
