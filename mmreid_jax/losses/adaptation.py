"""The loss of multi-modal test-time training (MTT) of HTT: margins on unlabelled test batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from mmreid_jax.errors import UserError
from mmreid_jax.losses.margins import (
    Groups,
    cross_identity_margin,
    is_first,
    positional_groups,
    three_modal_margin,
    unit_features,
)

Array = jax.Array


def pseudo_labels(logits: Array) -> Array:
    """The most likely class of every sample: [B, C] -> int [B]."""
    return jnp.argmax(logits, axis=-1)


def mtt_loss(
    features: Sequence[Array] | Array,
    logits: Array,
    *,
    form: Literal["code", "paper"] = "code",
    three_modal_width: float = 1.0,
    cross_identity_width: float = 1.0,
) -> tuple[Array, dict[str, Array]]:
    """3M plus CIM of a test batch, whose identities are guessed by the classifier.

    ``code`` (what the authors run, with batches of 2): 3M over as many consecutive chunks as there are distinct pseudo
    labels, plus CIM over the same chunks if samples 0 and 1 have different pseudo labels. With two samples of different
    pseudo labels each is a group of its own. Parity: the chunks are positional whatever the labels, as in training;
    where the authors' code stops because a chunk is missing or short, the groups that exist are used.

    ``paper`` (Algorithm 1, any batch): 3M of every sample on its own, plus CIM of every pair of samples of different
    pseudo labels, divided by the batch size. For two samples it is half of ``code``.

    Reference: Wang et al. 2024 (HTT, AAAI), Algorithm 1, and the authors' code.

    Args:
      features: M arrays [B, D] or one [M, B, D], B >= 2; normalised inside.
      logits: [B, C]; they choose the groups and receive no gradient.
      form: see above.
      three_modal_width: margin of 3M.
      cross_identity_width: margin of CIM.

    Returns:
      Scalar total, and its terms ``three_modal`` and ``cross_identity``, whose sum it is.

    Raises:
      UserError: fewer than two samples, shapes that do not fit, or an unknown form.
    """
    unit = unit_features(features)
    batch = unit.shape[1]
    if batch < 2 or len(logits) != batch:
        raise UserError(
            f"test-time training compares two or more samples, each with its logits; got {batch} samples and"
            f" {len(logits)} rows of logits"
        )
    guesses = pseudo_labels(logits)
    terms = {}
    if form == "code":
        groups = positional_groups(batch, jnp.sum(is_first(guesses)), batch)
        terms["three_modal"] = three_modal_margin(unit, groups, three_modal_width, "l2")
        across = cross_identity_margin(unit, groups, cross_identity_width, "l1")
        terms["cross_identity"] = jnp.where(guesses[0] != guesses[1], across, 0.0)
    elif form == "paper":
        alone = jnp.eye(batch, dtype=bool)
        groups = Groups(alone, alone)
        differ = (guesses[:, None] != guesses[None, :]).astype(unit.dtype)
        terms["three_modal"] = three_modal_margin(unit, groups, three_modal_width, "l2") / batch
        terms["cross_identity"] = cross_identity_margin(
            unit, groups, cross_identity_width, "l1", weights=differ / batch
        )
    else:
        raise UserError(f"unknown form {form!r} of the test-time loss; choose 'code' or 'paper'")
    return terms["three_modal"] + terms["cross_identity"], terms
