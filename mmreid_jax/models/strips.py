"""Horizontal strips of a feature map, each with an embedding and a classifier of its own, as Hetero-Center has them.

Reference: Zhu et al. 2020 (Hetero-Center); the strips are those of PCB (Sun et al. 2018).
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmreid_jax.errors import UserError
from mmreid_jax.models.layers import TorchBatchNorm, near_one, project_dense

Array = jax.Array


def strip_pool(maps: Array, strips: int) -> Array:
    """Means of horizontal strips over the full width, in at least float32: [B, H, W, C] -> [B, strips, C].

    The distance of strips is s = floor(H / strips) and every strip is H - (strips - 1) s rows high: as many strips as
    asked for, of one height, that reach from the first row to the last and overlap where H is no multiple. (Adaptive
    pooling, `resnet.part_pool`, cuts such maps otherwise.)

    Raises:
      UserError: the map has fewer rows than strips.
    """
    height = maps.shape[1]
    if height < strips:
        raise UserError(
            f"a feature map of {height} rows cannot be cut into {strips} strips; enlarge config.data.image_size"
        )
    stride = height // strips
    size = height - (strips - 1) * stride
    rows = maps.astype(jnp.promote_types(maps.dtype, jnp.float32)).mean(2)
    return jnp.stack([rows[:, i * stride : i * stride + size].mean(1) for i in range(strips)], axis=1)


class StripEmbedding(nn.Module):
    """Linear layer and batch norm."""

    features: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[B, C] -> [B, features]."""
        # He's initialisation by the fan-out, as the authors set it.
        init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        x = nn.Dense(self.features, kernel_init=init, dot_general=project_dense, name="linear")(x)
        return TorchBatchNorm(scale_init=near_one, name="norm")(x, train)


class StripHeads(nn.Module):
    """An embedding and a classifier for every strip; parameters are stacked on a leading axis of strips.

    Attributes:
      classes: number of identities.
      embed_dim: width of an embedding.
      dropout: rate of the dropout in front of the classifiers.
      slope: of the leaky ReLU in front of them.
    """

    classes: int
    embed_dim: int = 512
    dropout: float = 0.0
    slope: float = 0.1

    @nn.compact
    def __call__(self, strips: Array, train: bool, key: Array | None = None) -> tuple[Array, Array]:
        """Runs the heads.

        Args:
          strips: [B, P, C].
          train: normalise by batch statistics and update the running ones.
          key: random key of the dropout; None: no dropout.

        Returns:
          Embeddings [B, P, embed_dim], not normalised, and logits [B, P, classes].
        """
        per_strip = functools.partial(
            nn.vmap, variable_axes={"params": 0, "batch_stats": 0}, split_rngs={"params": True}, out_axes=1
        )
        embeddings = per_strip(StripEmbedding, in_axes=(1, None))(self.embed_dim, name="embed")(strips, train)
        active = nn.Dropout(self.dropout)(nn.leaky_relu(embeddings, self.slope), deterministic=key is None, rng=key)
        classify = per_strip(nn.Dense, in_axes=1)
        init = nn.initializers.normal(0.001)
        return embeddings, classify(self.classes, kernel_init=init, dot_general=project_dense, name="classifier")(
            active
        )
