"""Heads on top of backbone features: learned pooling, the BNNeck and linear classifiers."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmreid_jax.models.layers import TorchBatchNorm
from mmreid_jax.models.resnet import gem_pool

Array = jax.Array


class BNNeck(nn.Module):
    """Batch normalisation of the retrieval feature, then a linear classifier without bias.

    Reference: Luo et al. 2019 (Bag of Tricks); the bias of the normalisation exists but is frozen at its initial zero
    (the optimiser's duty), so that the feature stays centred on the classifier's hyperplanes.

    Attributes:
      classes: number of identities.
      scale_init: of the normalisation's scale.
      groups: of rows that are normalised by statistics of their own, as in `TorchBatchNorm`.
    """

    classes: int
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    groups: int = 1

    @nn.compact
    def __call__(self, features: Array, train: bool) -> tuple[Array, Array]:
        """[B, D] -> (normalised features [B, D], logits [B, classes])."""
        after = TorchBatchNorm(scale_init=self.scale_init, groups=self.groups, name="bottleneck")(features, train)
        classify = nn.Dense(self.classes, use_bias=False, kernel_init=nn.initializers.normal(0.001), name="classifier")
        return after, classify(after)


class Necks(nn.Module):
    """A `BNNeck` for each of several features.

    Attributes:
      classes: number of identities.
    """

    classes: int

    @nn.compact
    def __call__(self, features: Mapping[str, Array], train: bool) -> dict[str, Array]:
        """Features [B, D] by name, of any widths -> logits [B, classes] by name."""
        return {name: BNNeck(self.classes, name=name)(values, train)[1] for name, values in features.items()}


class LearnedPool(nn.Module):
    """The generalised mean of feature maps with a trained power, in at least float32.

    Reference: Radenovic et al. 2019 (GeM).

    Attributes:
      initial: value of the power at the start.
    """

    initial: float = 3.0

    @nn.compact
    def __call__(self, maps: Array) -> Array:
        """[B, H, W, C] -> [B, C]."""
        power = self.param("power", nn.initializers.constant(self.initial), (1,))
        return gem_pool(maps.astype(jnp.promote_types(maps.dtype, jnp.float32)), power)


class JointNeck(nn.Module):
    """A batch norm and a classifier without bias for features of several kinds, which share them.

    Attributes:
      classes: number of identities.
      separate_norms: every kind has a batch norm of its own; else there is one, whose statistics are those of all
        together.
    """

    classes: int
    separate_norms: bool = False

    @nn.compact
    def __call__(self, features: Mapping[str, Array], train: bool) -> tuple[dict[str, Array], dict[str, Array]]:
        """Features [n, D] by kind -> the normalised ones [n, D] and logits [n, classes] by kind.

        With norms of their own `init` needs all kinds.
        """

        def by_kind(rows: Array) -> dict[str, Array]:
            if len(features) == 1:
                return dict.fromkeys(features, rows)
            ends = np.cumsum([len(rows_of_kind) for rows_of_kind in features.values()])[:-1].tolist()
            return dict(zip(features, jnp.split(rows, ends), strict=True))

        if self.separate_norms:
            after = _NormsByKind(name="bottleneck")(features, train)
        else:
            joined = jnp.concatenate(list(features.values()))
            after = by_kind(TorchBatchNorm(name="bottleneck")(joined, train))
        classify = nn.Dense(self.classes, use_bias=False, kernel_init=nn.initializers.normal(0.001), name="classifier")
        return after, by_kind(classify(jnp.concatenate(list(after.values()))))


class _NormsByKind(nn.Module):
    """A batch norm for every kind of features."""

    @nn.compact
    def __call__(self, features: Mapping[str, Array], train: bool) -> dict[str, Array]:
        """{kind: [n, D]} -> the same, normalised."""
        return {kind: TorchBatchNorm(name=kind)(rows_of_kind, train) for kind, rows_of_kind in features.items()}
