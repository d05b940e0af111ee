"""Layers of DeMo: learned queries over the tokens of every set of modalities, and a head-wise mixture of experts.

Reference: Wang, Liu, Yan et al., Decoupled Feature-Based Mixture of Experts for Multi-Modal Object Re-Identification,
AAAI 2025 (DeMo); the authors' code.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmreid_jax.models.layers import Linear, TorchBatchNorm, project, quick_gelu, torch_uniform

Array = jax.Array
FUSIONS = ("experts", "queries", "none")
"""What `DecoupledMixture` makes of the tokens: the whole, without the experts, or nothing beside the features."""


def subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """All sets of one or more modalities, the small ones first: r, n, t, rn, rt, nt, rnt."""
    sizes = range(1, len(modalities) + 1)
    return [chosen for size in sizes for chosen in itertools.combinations(modalities, size)]


class GlobalLocal(nn.Module):
    """A class token and the mean of the patches' tokens -> one feature: layer norm, linear layer, quick GELU."""

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        """[B, 1 + N, D], class token first -> [B, D]."""
        both = jnp.concatenate([tokens[:, 0], tokens[:, 1:].mean(1)], axis=-1)
        normed = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="norm")(both)
        return quick_gelu(Linear(tokens.shape[-1], name="project")(normed))


class LearnedQuery(nn.Module):
    """Multi-head attention of one learned query, the same for all samples, over given tokens.

    The parameters are those of an ordinary attention: the joint projection [q | k | v] and the one of what comes out.
    Because there is one query, no token need be projected: the query's product with the projection of keys is one
    direction for each head, and values are projected after they have been averaged. (The bias of the keys adds the same
    to all scores and has no say.)

    Attributes:
      heads: of the attention.
      dropout: rate at which attention weights are dropped in training.
    """

    heads: int = 8
    dropout: float = 0.0

    @nn.compact
    def __call__(self, blocks: Sequence[Array], train: bool) -> Array:
        """Tokens in blocks [B, N, D] of any lengths -> [B, D]; dropout needs the random stream ``dropout``."""
        width = blocks[0].shape[-1]
        depth = width // self.heads
        query = self.param("query", nn.initializers.normal(width**-0.5), (width,))
        kernel = self.param("kernel", nn.initializers.xavier_uniform(), (width, 3 * width))
        bias = self.param("bias", nn.initializers.zeros, (3 * width,))
        kernels, biases = kernel.reshape(width, 3, self.heads, depth), bias.reshape(3, self.heads, depth)
        asked = jnp.einsum("w,whd->hd", query, kernels[:, 0]) + biases[0]
        directions = jnp.einsum("hd,whd->wh", asked, kernels[:, 1]) * depth**-0.5
        weights = jax.nn.softmax(jnp.concatenate([project(x, directions) for x in blocks], axis=1), axis=1)
        weights = nn.Dropout(self.dropout)(weights, deterministic=not train)
        ends = list(itertools.accumulate(x.shape[1] for x in blocks))[:-1]
        parts = zip(jnp.split(weights, ends, axis=1), blocks, strict=True)
        pooled = sum((jnp.einsum("bnh,bnw->bhw", w, x) for w, x in parts), start=jnp.zeros((), weights.dtype))
        values = jnp.einsum("bhw,whd->bhd", pooled, kernels[:, 2]) + weights.sum(1)[:, :, None] * biases[2]
        out = nn.Dense(width, kernel_init=torch_uniform, name="proj")
        return out(values.reshape(values.shape[0], width))


class Expert(nn.Module):
    """Linear layer, quick GELU, batch norm."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[B, d] -> [B, d]."""
        return TorchBatchNorm(name="norm")(quick_gelu(Linear(x.shape[-1], name="project")(x)), train)


class HeadwiseMixture(nn.Module):
    """Every head of every feature goes through an expert of its own, weighed by an attention of all features on it.

    Attributes:
      heads: that a feature is cut into.
    """

    heads: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> tuple[Array, Array]:
        """Features [B, E, D] of E kinds -> (the experts' answers times their weights [B, E, D], weights [B, heads, E]).

        The weights of a head sum to one over the kinds.
        """
        batch, kinds, width = x.shape
        depth = width // self.heads
        asked = quick_gelu(Linear(width, name="reduce")(x.reshape(batch, kinds * width)))
        asked = TorchBatchNorm(name="norm")(asked, train)
        query = Linear(width, use_bias=False, name="query")(asked).reshape(batch, self.heads, depth)
        key = Linear(width, use_bias=False, name="key")(x).reshape(batch, kinds, self.heads, depth)
        gates = jax.nn.softmax(jnp.einsum("bhd,behd->bhe", query, key) * depth**-0.5, axis=-1)
        chunks = x.reshape(batch, kinds, self.heads, depth).transpose(2, 1, 0, 3)
        axes: dict[Any, int] = {"params": 0, "batch_stats": 0}
        stacked: Any = Expert
        for _ in range(2):
            stacked = nn.vmap(stacked, variable_axes=axes, split_rngs={"params": True}, in_axes=(0, None))
        answers = stacked(name="experts")(chunks, train)
        weighed = answers.transpose(2, 1, 0, 3) * gates.swapaxes(1, 2)[..., None]
        return weighed.reshape(batch, kinds, width), gates


class DecoupledMixture(nn.Module):
    """What DeMo makes of the tokens of its trunk: a feature of each modality, and one of all sets of modalities.

    Attributes:
      modalities: names in order.
      heads: of the mixture of experts.
      dropout: of the attention weights.
      global_local: the feature of a modality is made of class token and patches (`GlobalLocal`); else it is the former.
      fusion: one of `FUSIONS`.
    """

    modalities: tuple[str, ...]
    heads: int
    dropout: float = 0.1
    global_local: bool = True
    fusion: str = "experts"

    @nn.compact
    def __call__(self, tokens: Array, train: bool) -> dict[str, Array]:
        """Tokens [M, B, 1 + N, D], class tokens first -> by name.

        ``features`` [M, B, D]; with queries ``queries`` [B, S, D] of the S sets in the order of `subsets` and
        ``mixture`` [B, S D]; with experts ``gates`` [B, heads, S].
        """
        features = tokens[:, :, 0]
        if self.global_local:
            made = [GlobalLocal(name=f"reduce_{m}")(x) for m, x in zip(self.modalities, tokens, strict=True)]
            features = jnp.stack(made)
        out = {"features": features}
        if self.fusion == "none":
            return out
        whole = jnp.concatenate([features[:, :, None], tokens[:, :, 1:]], axis=2)
        of = dict(zip(self.modalities, whole, strict=True))
        found = [
            LearnedQuery(dropout=self.dropout, name="query_" + "_".join(chosen))([of[m] for m in chosen], train)
            for chosen in subsets(self.modalities)
        ]
        out["queries"] = mixed = jnp.stack(found, axis=1)
        if self.fusion == "experts":
            mixed, out["gates"] = HeadwiseMixture(self.heads, name="mixture")(mixed, train)
        return {**out, "mixture": mixed.reshape(mixed.shape[0], -1)}
