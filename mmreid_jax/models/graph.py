"""Graph attention between the samples of a batch (DDAG): each sees those of its identity, in whatever modality.

Reference: Velickovic et al. 2018 (graph attention); Ye et al. 2020 (DDAG, ECCV), section "Cross-modality Graph
Structured Attention". The normalised adjacency of the paper decides only who sees whom, so here it is a mask.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array

# Xavier's initialisation with PyTorch's gain of 1.414 for leaky units; leading axes are heads.
_GAIN = 1.414
_SLOPE = 0.2


class AttentionLayer(nn.Module):
    """Graph attention without its non-linearity, in one head or in several.

    h = x W; e_ij = LeakyReLU(h_i . a_1 + h_j . a_2), and the output is sum_j softmax_j(e_ij) h_j over the neighbours j.

    Attributes:
      features: width of the output of a head.
      heads: their number, as leading axes of the parameters and the output; empty: one, without such an axis.
      dropout: rate of the dropout of the weights.
    """

    features: int
    heads: tuple[int, ...] = ()
    dropout: float = 0.0

    @nn.compact
    def __call__(self, nodes: Array, neighbours: Array, key: Array | None = None) -> Array:
        """Nodes [N, D] and bool [N, N] -> [*heads, N, features]; dropout where there is a key."""
        axes = tuple(range(len(self.heads)))
        init = nn.initializers.variance_scaling(_GAIN**2, "fan_avg", "uniform", batch_axis=axes)
        kernel = self.param("kernel", init, (*self.heads, nodes.shape[-1], self.features))
        vector = self.param("vector", init, (*self.heads, 2 * self.features, 1))
        values = nodes @ kernel
        own, other = jnp.split(vector, 2, axis=-2)
        scores = nn.leaky_relu(values @ own + jnp.swapaxes(values @ other, -1, -2), _SLOPE)
        weights = nn.softmax(jnp.where(neighbours, scores, -jnp.inf))
        return nn.Dropout(self.dropout)(weights, deterministic=key is None, rng=key) @ values


class GraphAttention(nn.Module):
    """Several heads side by side, then a layer that classifies the nodes.

    Attributes:
      classes: number of identities.
      heads: number of heads.
      width: of each head.
      dropout: rate of the four dropouts: nodes, weights of the heads, their outputs, weights of the last layer.
    """

    classes: int
    heads: int = 4
    width: int = 512
    dropout: float = 0.2

    @nn.compact
    def __call__(self, nodes: Array, neighbours: Array, key: Array | None = None) -> dict[str, Array]:
        """Classifies nodes by themselves and their neighbours.

        Args:
          nodes: [N, D].
          neighbours: bool [N, N], row i: whom node i sees; every node sees itself.
          key: random key of the dropouts; None: no dropout.

        Returns:
          By name: ``heads`` [heads, N, width], ``out`` [N, classes], what the last layer makes of them, and ``logits``
          [N, classes], its ELU.
        """
        keys: list[Array | None] = [None] * 4 if key is None else list(jax.random.split(key, 4))
        drop = nn.Dropout(self.dropout, deterministic=key is None)
        nodes = drop(nodes, rng=keys[0])
        heads = nn.elu(
            AttentionLayer(self.width, (self.heads,), self.dropout, name="heads")(nodes, neighbours, keys[1])
        )
        joined = jnp.moveaxis(heads, 0, 1).reshape(len(nodes), -1)
        last = AttentionLayer(self.classes, dropout=self.dropout, name="out")
        out = last(drop(joined, rng=keys[2]), neighbours, keys[3])
        return {"heads": heads, "out": out, "logits": nn.elu(out)}
