"""Part-aware cycle contrast (PCC): patches of two modalities that are not paired learn to find one another.

A patch looks for its soft nearest neighbour in the other modality and in its own; what it finds on both sides must
agree, and differ from what other patches find. Patches are stripes: V, T [B, S, D] of visible and infrared images.

Reference: Wan et al. (MMGL, arXiv 2112.06147), method figure. It gives the two retrievals from one query and the
positive pair; candidates, negatives and the form of the loss are not told and are `CycleContrastOptions`.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmreid_jax.errors import UserError
from mmreid_jax.losses.vectors import at_least_float32, l2_normalise

Array = jax.Array

MODES = ("parallel", "sequential", "cycle_back")
SCOPES = ("batch", "pair")
QUERIES = ("both", "visible", "infrared")


@dataclasses.dataclass(frozen=True)
class CycleContrastOptions:
    """What the figure leaves open, see `cycle_contrast`.

    Attributes:
      mode: ``parallel``: both retrievals start from the query (the figure). ``sequential``: the one in the own modality
        starts from what was found in the other. ``cycle_back``: what was found in the other must lead back to the query
        itself among its own modality.
      candidate_scope: where neighbours are looked for: among all patches of the modality (``batch``), or those of the
        one image of the same number in the batch (``pair``).
      negative_scope: what a positive pair is told apart from: what all patches have found, or those of the same image.
      query: whose patches ask: of ``both`` modalities (mean of the two losses), or of one.
      exclude_self: a patch is no candidate of its own; no matter in ``cycle_back``, which retrieves in the other
        modality alone.
      temperature: of the contrast.
      retrieval_temperature: of the soft neighbours; None for `temperature`.
      stop_gradient: candidates get no gradient, queries alone do.
    """

    mode: str = "parallel"
    candidate_scope: str = "batch"
    negative_scope: str = "batch"
    query: str = "both"
    exclude_self: bool = False
    temperature: float = 0.07
    retrieval_temperature: float | None = None
    stop_gradient: bool = False

    def __post_init__(self) -> None:
        for key, value, known in (
            ("cl_mode", self.mode, MODES),
            ("candidate_scope", self.candidate_scope, SCOPES),
            ("negative_scope", self.negative_scope, SCOPES),
            ("cl_query", self.query, QUERIES),
        ):
            if value not in known:
                raise UserError(f"config.loss.{key} is {value!r}; choose one of {', '.join(known)}")
        for key, temperature in (
            ("cl_temperature", self.temperature),
            ("retrieval_temperature", self.retrieval_temperature),
        ):
            if temperature is not None and not temperature > 0:
                raise UserError(f"config.loss.{key} is {temperature}; it must be above 0")


class FoundPatches(NamedTuple):
    """What the patches of one modality found, in G groups of n (one group, or one for each image).

    Attributes:
      across: [N, D] unit vectors found in the other modality, N = B * S.
      within: [N, D] unit vectors found in the own modality; in ``cycle_back`` its patches themselves.
      attention_across: [G, n, n] weights of the candidates of the other modality.
      attention_within: [G, n, n] the same of the own modality; None in ``cycle_back``.
    """

    across: Array
    within: Array
    attention_across: Array
    attention_within: Array | None


def cycle_contrast(
    visible: Array, infrared: Array, options: CycleContrastOptions | None = None
) -> tuple[Array, dict[str, Array]]:
    """The loss of patches that do not find the same on both sides.

    With a_n, b_n the vectors that query n finds in the other and in its own modality (`find`) and t the temperature:
    mean_n of (-log softmax_k(a_n . b_k / t)[n] - log softmax_k(b_n . a_k / t)[n]) / 2 over the queries of a modality;
    in ``cycle_back`` only the first of the two, with the patches themselves as b. Where nothing can be told apart that
    is ln(B * S), with negatives from a pair ln(S).

    Memory is a few [B * S, B * S] matrices.

    Args:
      visible: [B, S, D] patches of the global batch, not normalised; a zero patch is allowed.
      infrared: [B, S, D]; image i needs not show what visible image i shows.
      options: see there; None for the defaults.

    Returns:
      Scalar loss; and for logs ``visible_query`` and ``infrared_query``, the losses of both sets of queries whichever
      the total takes, ``self_weight``, the mean weight of a patch in its own retrieval (in ``cycle_back`` the
      probability to return to it), and ``attention_entropy``, the mean entropy in nats of the retrieval in the other
      modality. The last two are means over both sets and have no gradient.

    Raises:
      UserError: shapes that differ, or no candidate is left because a patch excludes itself.
    """
    options = options or CycleContrastOptions()
    if visible.ndim != 3 or visible.shape != infrared.shape:
        raise UserError(
            f"visible patches {visible.shape} and infrared patches {infrared.shape} must both be [images, stripes,"
            " dimensions] and of one shape"
        )
    visible, infrared = (l2_normalise(at_least_float32(patches)) for patches in (visible, infrared))
    of_visible, watched = _of_queries(visible, infrared, options)
    of_infrared, others = _of_queries(infrared, visible, options)
    total = {"visible": of_visible, "infrared": of_infrared, "both": (of_visible + of_infrared) / 2}[options.query]
    means = {name: (watched[name] + others[name]) / 2 for name in watched}
    return total, {"visible_query": of_visible, "infrared_query": of_infrared, **means}


def find(patches: Array, other: Array, options: CycleContrastOptions) -> FoundPatches:
    """What the patches of one modality find in the other modality and in their own.

    Args:
      patches: [B, S, D] unit patches, the queries.
      other: [B, S, D] unit patches of the other modality.
      options: see there.
    """
    size, shape = patches.shape[-1], _grouped(patches.shape, options.candidate_scope)
    temperature = options.temperature if options.retrieval_temperature is None else options.retrieval_temperature
    if options.exclude_self and options.mode != "cycle_back" and shape[1] < 2:
        raise UserError("config.loss.exclude_self leaves a patch without candidates; use more stripes or images")
    queries, candidates, others = patches.reshape(shape), patches.reshape(shape), other.reshape(shape)
    if options.stop_gradient:
        candidates, others = jax.lax.stop_gradient((candidates, others))
    across, attention = soft_neighbours(queries, others, temperature)
    if options.mode == "cycle_back":
        return FoundPatches(across.reshape(-1, size), candidates.reshape(-1, size), attention, None)
    start = queries if options.mode == "parallel" else across
    within, back = soft_neighbours(start, candidates, temperature, options.exclude_self)
    return FoundPatches(across.reshape(-1, size), within.reshape(-1, size), attention, back)


def soft_neighbours(
    queries: Array, candidates: Array, temperature: float, exclude_self: bool = False
) -> tuple[Array, Array]:
    """Soft nearest neighbours: sum_k w_k u_k at unit length, w = softmax_k(q . u_k / temperature).

    Args:
      queries: [G, n, D] unit vectors.
      candidates: [G, m, D] unit vectors; those of a query's own group are candidates.
      temperature: of the softmax.
      exclude_self: candidate n is none of query n.

    Returns:
      Neighbours [G, n, D] and weights [G, n, m].
    """
    logits = _similarities(queries, candidates) / temperature
    if exclude_self:
        logits = jnp.where(jnp.eye(logits.shape[-1], dtype=bool), -jnp.inf, logits)
    weights = jax.nn.softmax(logits, axis=-1)
    return l2_normalise(jnp.matmul(weights, candidates, precision="highest")), weights


def health(visible: Array, infrared: Array) -> dict[str, Array]:
    """Numbers that tell whether patches collapse, for logs: of all patches at unit length, without gradient.

    Args:
      visible: [B, S, D], not normalised.
      infrared: [B, S, D].

    Returns:
      ``modality_cosine``: mean cosine of visible patches with infrared ones, over all pairs (1: all are one vector).
      ``std_<stream>``: standard deviation over patches, mean over dimensions (0: collapsed; spread over the whole
      sphere it is about 1 / sqrt(D)). ``effective_rank_<stream>``: (tr C)^2 / tr(C^2) of the covariance C, from 1 (one
      direction) to D (all alike), 0 where all patches are one.
    """
    spread, means = {}, []
    for name, patches in (("visible", visible), ("infrared", infrared)):
        patches = jax.lax.stop_gradient(at_least_float32(patches))
        unit = l2_normalise(patches.reshape(-1, patches.shape[-1]))
        means.append(jnp.mean(unit, axis=0))
        centered = unit - means[-1]
        variance = jnp.mean(jnp.square(centered), axis=0)
        covariance = jnp.matmul(centered.T, centered, precision="highest") / len(unit)
        spread[f"std_{name}"] = jnp.mean(jnp.sqrt(variance))
        # The small number keeps the rounding errors of equal patches from having a rank.
        squares = jnp.sum(jnp.square(covariance)) + 1e-12
        spread[f"effective_rank_{name}"] = jnp.square(jnp.sum(variance)) / squares
    return {"modality_cosine": jnp.sum(means[0] * means[1]), **spread}


def _of_queries(patches: Array, other: Array, options: CycleContrastOptions) -> tuple[Array, dict[str, Array]]:
    """Loss of the queries of one modality [B, S, D] at unit length, and what `cycle_contrast` watches of them."""
    neighbours = find(patches, other, options)
    shape = _grouped(patches.shape, options.negative_scope)
    across, within = neighbours.across.reshape(shape), neighbours.within.reshape(shape)
    logits = _similarities(across, within) / options.temperature
    positive = jnp.sum(across * within, axis=-1) / options.temperature
    missed = jax.nn.logsumexp(logits, axis=-1) - positive
    attention = jax.lax.stop_gradient(neighbours.attention_across)
    entropy = -jnp.mean(jnp.sum(jax.scipy.special.xlogy(attention, attention), axis=-1))
    if neighbours.attention_within is None:
        self_weight = jnp.mean(jnp.exp(-jax.lax.stop_gradient(missed)))
        return jnp.mean(missed), {"self_weight": self_weight, "attention_entropy": entropy}
    missed_back = jax.nn.logsumexp(logits, axis=-2) - positive
    back = jax.lax.stop_gradient(neighbours.attention_within)
    self_weight = jnp.mean(jnp.trace(back, axis1=-2, axis2=-1)) / back.shape[-1]
    return jnp.mean(missed + missed_back) / 2, {"self_weight": self_weight, "attention_entropy": entropy}


def _grouped(shape: tuple[int, ...], scope: str) -> tuple[int, int, int]:
    """Shape [G, n, D] of patches [B, S, D] in the groups of a scope."""
    images, stripes, size = shape
    return (images, stripes, size) if scope == "pair" else (1, images * stripes, size)


def _similarities(a: Array, b: Array) -> Array:
    """Inner products [G, n, m] of [G, n, D] and [G, m, D]; tensor cores would round unit vectors to three digits."""
    return jnp.einsum("gnd,gmd->gnm", a, b, precision="highest")
