"""The two margin losses between modalities: 3M inside an identity (IEEE, HTT), CIM across identities (HTT).

Both look at groups of samples of one identity. How a batch is cut into groups is a choice of its own (`Groups`):

* ``by_label``: samples of equal label; right for any order of the batch and any number of samples an identity;
* ``positional``: consecutive chunks, as the authors' code does; labels are not read. The same on batches of P sorted
  identities with K samples each, which is all that the training sampler makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.losses.vectors import (
    Distance,
    at_least_float32,
    check_distance,
    distances_between_rows,
    l2_normalise,
    paired_distance,
)

Array = jax.Array
Grouping = Literal["by_label", "positional"]

# Pairs of groups whose hardest samples are compared at a time, so that memory does not grow with their number.
_PAIRS_AT_A_TIME = 4096


class Groups(NamedTuple):
    """A batch cut into groups, with static shapes.

    Attributes:
      members: bool [G, B], who belongs to which group; rows of groups that do not exist are empty.
      compared: bool [G, B], members that CIM compares with those of other groups.
    """

    members: Array
    compared: Array


def groups_by_label(labels: Array) -> Groups:
    """Samples of equal label, in the order of their first appearance: int [B] -> B groups, some empty."""
    same = labels[:, None] == labels[None, :]
    members = same & is_first(labels)[:, None]
    return Groups(members, members)


def is_first(labels: Array) -> Array:
    """Whether a sample is the first one of its label: int [B] -> bool [B]."""
    same = labels[:, None] == labels[None, :]
    return jnp.argmax(same, axis=1) == jnp.arange(len(labels))


def positional_groups(batch: int, count: int | Array, size: int) -> Groups:
    """`count` consecutive chunks of ceil(batch / count) samples; CIM compares the first batch // count of each.

    Args:
      batch: number of samples B.
      count: number of chunks; may be traced.
      size: static upper limit of `count`.

    Returns:
      `size` groups. Where ceil(batch / count) is too long for `count` chunks, the last groups are short or empty.
    """
    length = -(-batch // count)
    position = jnp.arange(batch)
    members = position // length == jnp.arange(size)[:, None]
    return Groups(members, members & (position % length < batch // count))


def three_modal_margin_loss(
    features: Sequence[Array] | Array,
    labels: Array | None = None,
    *,
    margin: float = 1.0,
    distance: Distance = "l2",
    grouping: Grouping = "by_label",
    num_identities: int | None = None,
) -> Array:
    """3M: keeps the modality centres of each identity at a set distance from one another.

    With c_a(u) the mean over identity u of the unit features of modality a (not normalised again), and d the squared
    Euclidean distance: sum over u of max over modality pairs (a, b) of |margin - d(c_a(u), c_b(u))|. Of equal pairs the
    first in the order (R,N), (N,T), (R,T) receives the gradient.

    Reference: Wang et al. 2022 (IEEE, AAAI) and 2024 (HTT, AAAI), the multi-modal margin loss, as in the authors' code.

    Args:
      features: M arrays [B, D] or one [M, B, D], M >= 2, any length; normalised inside.
      labels: int [B]; not read when the grouping is positional.
      margin: wanted distance.
      distance: ``l2`` (squared), ``l1`` (mean over dimensions) or ``cos`` (similarity).
      grouping: see the module.
      num_identities: number of chunks of the positional grouping, static.

    Returns:
      Scalar.

    Raises:
      UserError: a shape or option is wrong, or the batch cannot be cut into `num_identities` chunks.
    """
    unit = unit_features(features)
    groups = cut(unit, labels, grouping, num_identities)
    return three_modal_margin(unit, groups, margin, distance)


def cross_identity_margin_loss(
    features: Sequence[Array] | Array,
    labels: Array | None = None,
    *,
    margin: float = 0.5,
    distance: Distance = "l1",
    grouping: Grouping = "by_label",
    num_identities: int | None = None,
) -> Array:
    """CIM: pushes apart the closest samples of different identities, over all pairs of modalities.

    For each pair of identities u < v, the pair of a sample of u in modality a and a sample of v in modality b that
    maximises |margin - d| counts; the loss is the mean of these maxima over the pairs of identities, with d the mean
    over the dimensions of |x - y| of unit features. Unit vectors have d <= 2 / sqrt(D), so a margin of at least that is
    inert: it shifts the value, and the pair is simply the closest one. A single identity gives 0.
    Of equal pairs the first receives the gradient, in the order: sample of u, sample of v, a, b.

    Reference: Wang et al. 2024 (HTT, AAAI), the cross-identity inter-modal margin loss, as in the authors' code.
    Arguments as in `three_modal_margin_loss`; margin 0.5 in training, 1 in test-time training.

    Raises:
      UserError: a shape or option is wrong, or the positional chunks do not exist, are a single one or are too short.
    """
    unit = unit_features(features)
    groups = cut(unit, labels, grouping, num_identities, compare=True)
    return cross_identity_margin(unit, groups, margin, distance)


def unit_features(features: Sequence[Array] | Array) -> Array:
    """M arrays [B, D] -> [M, B, D] of rows of unit length, in at least float32.

    Raises:
      UserError: fewer than two modalities, or arrays that are not all [B, D].
    """
    shapes = {jnp.shape(feature) for feature in features}
    if len(features) < 2 or len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise UserError(
            "the margin losses compare two or more modalities, each [batch, dimension] of the same shape;"
            f" got {[tuple(jnp.shape(feature)) for feature in features]}"
        )
    return l2_normalise(at_least_float32(jnp.stack([jnp.asarray(feature) for feature in features])))


def three_modal_margin(unit: Array, groups: Groups, margin: float, distance: Distance) -> Array:
    """`three_modal_margin_loss` of unit features [M, B, D] in given groups."""
    check_distance(distance)
    centers, exists = group_centers(unit, groups)
    first, second = modality_pairs(len(unit))
    deviation = jnp.abs(margin - paired_distance(centers[first], centers[second], distance))
    # A plain maximum would share the gradient between equal pairs.
    worst = jnp.argmax(deviation, axis=0)
    chosen = jnp.take_along_axis(deviation, worst[None, :], axis=0)[0]
    return jnp.sum(jnp.where(exists, chosen, 0.0))


def group_centers(features: Array, groups: Groups) -> tuple[Array, Array]:
    """Means over the members of each group: [M, B, D] -> ([M, G, D], bool [G]: whether a group has members)."""
    members = groups.members.astype(features.dtype)
    size = jnp.sum(members, axis=1)
    sums = jnp.einsum("gb,mbd->mgd", members, features, precision="highest")
    return sums / jnp.maximum(size, 1.0)[:, None], size > 0


def cross_identity_margin(
    unit: Array, groups: Groups, margin: float, distance: Distance, weights: Array | None = None
) -> Array:
    """`cross_identity_margin_loss` of unit features [M, B, D] in given groups.

    Args:
      unit: [M, B, D].
      groups: G groups.
      margin: see the loss.
      distance: see the loss.
      weights: [G, G], read above the diagonal; pairs of groups are summed with these weights instead of averaged.

    Returns:
      Scalar; 0 without pairs of groups.
    """
    check_distance(distance)
    modalities, batch, dimension = unit.shape
    rows = unit.reshape(modalities * batch, dimension)
    u, v = np.triu_indices(len(groups.compared), k=1)
    if not len(u):
        return jnp.zeros((), unit.dtype)
    exists = jnp.any(groups.compared, axis=1)
    paired = (exists[u] & exists[v]).astype(unit.dtype)
    share = paired / jnp.maximum(jnp.sum(paired), 1.0) if weights is None else paired * weights[u, v]
    left, right = _hardest_pairs(jax.lax.stop_gradient(rows), groups.compared, margin, distance, batch)

    def weighted(pair: tuple[Array, Array, Array]) -> Array:
        a, b, weight = pair
        return weight * jnp.abs(margin - paired_distance(rows[a], rows[b], distance))

    pairs = (left[u, v], right[u, v], share)
    if len(u) <= _PAIRS_AT_A_TIME:
        return jnp.sum(weighted(pairs))
    return jnp.sum(jax.lax.map(jax.checkpoint(weighted), pairs, batch_size=_PAIRS_AT_A_TIME))


def _hardest_pairs(rows: Array, compared: Array, margin: float, distance: Distance, batch: int) -> tuple[Array, Array]:
    """For groups u, v the pair of rows with the largest |margin - d|: two int [G, G] of row numbers in [M * B, D]."""
    modalities = len(rows) // batch
    deviation = jnp.abs(margin - distances_between_rows(rows, distance))
    # [M*B, M*B] -> [B, B, M*M]: samples before modalities, the order in which the first of equal pairs is chosen.
    deviation = deviation.reshape(modalities, batch, modalities, batch).transpose(1, 3, 0, 2)
    deviation = deviation.reshape(batch, batch, modalities * modalities)
    best_modalities = jnp.argmax(deviation, axis=-1)
    deviation = jnp.max(deviation, axis=-1)
    # Best partner j in group v of every sample i: [B, G]; then the best such i in group u: [G, G].
    to_group = jnp.where(compared[None, :, :], deviation[:, None, :], -jnp.inf)
    partner, value = jnp.argmax(to_group, axis=-1), jnp.max(to_group, axis=-1)
    sample = jnp.argmax(jnp.where(compared[:, None, :], value.T[None, :, :], -jnp.inf), axis=-1)
    partner = partner[sample, jnp.arange(len(compared))[None, :]]
    a, b = jnp.divmod(best_modalities[sample, partner], modalities)
    return a * batch + sample, b * batch + partner


def modality_pairs(modalities: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of modalities, neighbours first: (0,1), (1,2), (0,2) for three, the order of the reference."""
    pairs = [(a, a + gap) for gap in range(1, modalities) for a in range(modalities - gap)]
    first, second = zip(*pairs, strict=True)
    return np.array(first), np.array(second)


def cut(unit: Array, labels: Array | None, grouping: str, num_identities: int | None, compare: bool = False) -> Groups:
    """The groups of a batch; see `three_modal_margin_loss` for arguments and errors. `compare`: CIM will use them."""
    batch = unit.shape[1]
    if grouping == "by_label":
        if labels is None or jnp.shape(labels) != (batch,):
            raise UserError(
                f"grouping 'by_label' needs one label for each of the {batch} samples;"
                f" got {'none' if labels is None else f'shape {jnp.shape(labels)}'}"
            )
        return groups_by_label(jnp.asarray(labels))
    if grouping != "positional":
        raise UserError(f"unknown grouping {grouping!r} of a margin loss; choose 'by_label' or 'positional'")
    if num_identities is None or not 1 <= num_identities <= batch:
        raise UserError(
            f"grouping 'positional' needs num_identities between 1 and the batch size {batch}; got {num_identities}"
        )
    _check_chunks(batch, num_identities, compare)
    return positional_groups(batch, num_identities, num_identities)


def _check_chunks(batch: int, count: int, compare: bool) -> None:
    """Raises UserError where the authors' positional cut of `batch` samples into `count` chunks fails."""
    length = -(-batch // count)
    chunks = -(-batch // length)
    advice = "make the batch P identities of K samples each, or use grouping 'by_label'"
    if chunks < count:
        raise UserError(f"{batch} samples in chunks of {length} give {chunks} chunks, not {count}; {advice}")
    if compare and count == 1:
        raise UserError(f"one identity leaves no pair of identities to compare; {advice}")
    last = batch - (count - 1) * length
    if compare and last < batch // count:
        raise UserError(
            f"{batch} samples in {count} chunks leave {last} samples in the last chunk, fewer than the"
            f" {batch // count} that are compared; {advice}"
        )
