"""Heads on top of backbone features: the BNNeck and linear classifiers."""

from __future__ import annotations

import flax.linen as nn
import jax

from mmreid_jax.models.layers import TorchBatchNorm

Array = jax.Array


class BNNeck(nn.Module):
    """Batch normalisation of the retrieval feature, then a linear classifier without bias.

    Reference: Luo et al. 2019 (Bag of Tricks); the bias of the normalisation exists but is frozen at its initial zero
    (the optimiser's duty), so that the feature stays centred on the classifier's hyperplanes.

    Attributes:
      classes: number of identities.
      scale_init: of the normalisation's scale.
    """

    classes: int
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, features: Array, train: bool) -> tuple[Array, Array]:
        """[B, D] -> (normalised features [B, D], logits [B, classes])."""
        after = TorchBatchNorm(scale_init=self.scale_init, name="bottleneck")(features, train)
        classify = nn.Dense(self.classes, use_bias=False, kernel_init=nn.initializers.normal(0.001), name="classifier")
        return after, classify(after)
