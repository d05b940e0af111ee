"""IEEE's networks after the backbone, each for one modality; the method runs them for all.

Every modality has layers of its own: what it takes from the others' feature maps (interaction), a reduction to part
and global features, what a part takes from the global one (relation), and embeddings with classifiers for the parts.

Reference: Wang et al. 2022 (IEEE, AAAI), sections "Cross-modal Interacting Module" and "Relation-based Embedding
Module", and the authors' code where it differs.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmreid_jax.errors import UserError
from mmreid_jax.models.layers import Conv, Linear, TorchBatchNorm, torch_uniform
from mmreid_jax.models.resnet import average_pool, part_pool

Array = jax.Array
Dtype = Any

LAYERS = ("own", "rest", "attention", "reduce", "relation", "embed", "classifier")
"""Names of the layers of a branch, in the order in which they run."""
RELATIONS = ("code", "paper", "off")
GLOBALS = ("backbone", "cim")
_REDUCTION = 16


class ConvNormReLU(nn.Module):
    """1x1 convolution without bias, batch norm, ReLU."""

    features: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[B, h, w, C] -> [B, h, w, features]."""
        x = Conv(self.features, 1, dtype=self.dtype, kernel_init=torch_uniform, name="conv")(x)
        return nn.relu(TorchBatchNorm(name="norm")(x, train))


class ChannelAttention(nn.Module):
    """Weights of channels from their mean and their maximum over space, by a perceptron that both share."""

    @nn.compact
    def __call__(self, maps: Array) -> Array:
        """[B, h, w, C] -> [B, C] in (0, 1), in at least float32."""
        width = maps.shape[-1]
        squeeze = Linear(max(1, width // _REDUCTION), use_bias=False, name="squeeze")
        excite = Linear(width, use_bias=False, name="excite")
        highest = maps.max((1, 2)).astype(jnp.promote_types(maps.dtype, jnp.float32))
        return nn.sigmoid(sum(excite(nn.relu(squeeze(pooled))) for pooled in (average_pool(maps), highest)))


class Relation(nn.Module):
    """What every part takes from the global feature.

    ``code``: part + 2 gamma W2 global. Parity: the released code's softmax runs over an axis of length one and is 1,
    and its value projection is overwritten, so two of three projections do nothing; they are kept for checkpoints, and
    weight decay acts on ``query``. ``paper``: part + global + softmax(W1 part * W2 global) * W3 global, the softmax
    over channels (the paper leaves its axis open).
    """

    form: str = "code"

    @nn.compact
    def __call__(self, parts: Array, whole: Array) -> Array:
        """Parts [B, P, D] and the global feature [B, D] -> [B, P, D]."""
        query, key, value = (Linear(parts.shape[-1], name=name) for name in ("query", "part", "value"))
        whole = whole[:, None]
        if self.form == "paper":
            return parts + whole + nn.softmax(query(parts) * key(whole)) * value(whole)
        if self.is_initializing():
            query(parts), value(parts)
        gamma = self.param("gamma", nn.initializers.zeros, (1,))
        return parts + 2.0 * gamma * key(whole)


class Embedding(nn.Module):
    """Linear layer, batch norm, ReLU."""

    features: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[B, D] -> [B, features]."""
        return nn.relu(TorchBatchNorm(name="norm")(Linear(self.features, name="linear")(x), train))


class Branch(nn.Module):
    """All that follows the backbone of one modality.

    Attributes:
      classes: number of identities.
      parts: horizontal parts of the feature map.
      part_dim: width of a part after the reduction.
      embed_dim: width of its embedding.
      interact: the cross-modal interacting module; off: parts are pooled from the backbone's map.
      attend: channel attention inside of it.
      relation: "code", "paper" or "off", see `Relation`.
      global_from: map that the global feature is pooled from, "backbone" (the code) or "cim" (the paper).
      dtype: type of the computation on maps (None: theirs); pooled features are in at least float32.
    """

    classes: int
    parts: int = 6
    part_dim: int = 768
    embed_dim: int = 128
    interact: bool = True
    attend: bool = True
    relation: str = "code"
    global_from: str = "backbone"
    dtype: Dtype = None

    def __post_init__(self) -> None:
        for key, value, known in (("rem", self.relation, RELATIONS), ("global_from", self.global_from, GLOBALS)):
            if value not in known:
                raise UserError(f"config.model.{key} is {value!r}; choose one of {', '.join(known)}")
        super().__post_init__()

    @nn.compact
    def __call__(self, feature_map: Array, others: Array, train: frozenset[str] = frozenset()) -> dict[str, Array]:
        """Runs the branch.

        Args:
          feature_map: of the modality [B, h, w, C].
          others: sum of the other modalities' maps [B, h, w, C].
          train: names of the `LAYERS` that normalise by batch statistics and update their running ones.

        Returns:
          By name: ``attention`` [B, C] (where it is on), ``maps`` [B, h, w, C] that parts are pooled from, ``parts``
          [B, P, C], ``global_reduced`` [B, D], ``parts_reduced`` [B, P, D], ``related`` [B, P, D], ``embedding``
          [B, P * E] and ``logits`` [B, P, classes].
        """
        out: dict[str, Array] = {}
        maps = feature_map
        if self.interact:
            rest = ConvNormReLU(feature_map.shape[-1], self.dtype, name="rest")(others, "rest" in train)
            added = rest
            if self.attend:
                out["attention"] = ChannelAttention(name="attention")(rest)
                added = out["attention"].astype(rest.dtype)[:, None, None] * rest + rest
            maps = ConvNormReLU(feature_map.shape[-1], self.dtype, name="own")(feature_map, "own" in train) + added
        parts = part_pool(maps.astype(jnp.promote_types(maps.dtype, jnp.float32)), self.parts)
        whole = average_pool(feature_map if self.global_from == "backbone" else maps)
        # Parity: one layer reduces both, with batch statistics of each, first those of the global feature.
        reduce = ConvNormReLU(self.part_dim, name="reduce")
        whole = reduce(whole[:, None, None], "reduce" in train)[:, 0, 0]
        reduced = reduce(parts[:, :, None], "reduce" in train)[:, :, 0]
        related = reduced if self.relation == "off" else Relation(self.relation, name="relation")(reduced, whole)
        per_part = functools.partial(
            nn.vmap, variable_axes={"params": 0, "batch_stats": 0}, split_rngs={"params": True}, out_axes=1
        )
        embedding = per_part(Embedding, in_axes=(1, None))(self.embed_dim, name="embed")(related, "embed" in train)
        logits = per_part(Linear, in_axes=1)(self.classes, name="classifier")(embedding)
        out.update(maps=maps, parts=parts, global_reduced=whole, parts_reduced=reduced, related=related)
        return {**out, "embedding": embedding.reshape(embedding.shape[0], -1), "logits": logits}
