"""Losses that divide by counts or cut the batch into groups, on random orders of labels and counts, against loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.losses import centers, identity, margins, text, triplet, weighted_triplet

from .test_centers import by_loops
from .test_margins import groups_of, naive_cross_identity, naive_three_modal
from .test_triplet import naive as naive_hardest
from .test_weighted_triplet import naive as naive_weighted

# Of one size, so that each loss is compiled once.
BATCH, WIDTH, MODALITIES, DRAWS = 9, 5, 3, 25
SCALE = 4.0


def draws():
    """Labels [BATCH] of 2 to BATCH identities in a random order, mostly of unequal number, and features [M, B, D]."""
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        people = int(rng.integers(2, BATCH + 1))
        labels = np.concatenate([np.arange(people), rng.integers(0, people, BATCH - people)])
        names = rng.choice(50, people, replace=False)
        yield names[rng.permutation(labels)], rng.standard_normal((MODALITIES, BATCH, WIDTH))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def log_softmax(row):
    return row - row.max() - np.log(np.exp(row - row.max()).sum())


def sums_of_texts(images, texts, labels):
    """Quotients of one mean over all pairs by the count of each text."""
    rows = [log_softmax(SCALE * unit(images) @ t) for t in unit(texts)]
    pairs = sum(rows[j][i] for j in range(BATCH) for i in range(BATCH) if labels[i] == labels[j]) / BATCH**2
    return sum(-pairs / np.sum(labels == label) for label in labels)


def soft(pair):
    return np.mean([np.log1p(np.exp(p - n)) for p, n in zip(*pair, strict=True)])


def centre(features, labels):
    """Centres are drawn: one for each of 50 classes."""
    table = np.random.default_rng(0).standard_normal((50, WIDTH))
    return np.mean([np.sum((x - table[label]) ** 2) for x, label in zip(features, labels, strict=True)])


CENTRES = np.random.default_rng(0).standard_normal((50, WIDTH))
# Name -> (the loss of features [M, B, D] and labels, the same by loops).
LOSSES = {
    "triplet": (
        lambda x, y: triplet.batch_hard_triplet(x[0], y, 0.3)[0],
        lambda x, y: naive_hardest(x[0], y, 0.3, 0.0),
    ),
    "triplet, ties shared": (
        lambda x, y: triplet.batch_hard_triplet(x[0], y, share_ties=True)[0],
        lambda x, y: naive_hardest(x[0], y, None, 0.0),
    ),
    "weighted triplet": (
        lambda x, y: weighted_triplet.weighted_triplet(x[0], y)[0],
        lambda x, y: soft(naive_weighted(x[0], y, 1.0, "code")),
    ),
    "weighted triplet, softmax": (
        lambda x, y: weighted_triplet.weighted_triplet(x[0], y, form="softmax")[0],
        lambda x, y: soft(naive_weighted(x[0], y, 1.0, "softmax")),
    ),
    "squared difference": (
        lambda x, y: weighted_triplet.squared_difference_triplet(x[0], y, alpha=2.0, square=False)[0],
        lambda x, y: soft(naive_weighted(x[0], y, 2.0, "code")),
    ),
    "centres": (lambda x, y: centers.center_loss(x[0], y, jnp.asarray(CENTRES)), lambda x, y: centre(x[0], y)),
    "hetero-centre": (
        lambda x, y: centers.hetero_center_loss(x, y, margin=0.05),
        lambda x, y: by_loops(x, y, "l2", 0.05),
    ),
    "3M": (
        lambda x, y: margins.three_modal_margin_loss(x, y),
        lambda x, y: naive_three_modal(x, groups_of(y), 1.0, "l2"),
    ),
    "CIM": (
        lambda x, y: margins.cross_identity_margin_loss(x, y),
        lambda x, y: naive_cross_identity(x, groups_of(y), 0.5, "l1"),
    ),
    "texts to images": (
        lambda x, y: text.text_to_image(x[0], x[1], y, SCALE),
        lambda x, y: sums_of_texts(x[0], x[1], y),
    ),
    "cross-entropy": (
        lambda x, y: identity.cross_entropy(x[0] @ jnp.asarray(CENTRES.T), y),
        lambda x, y: -np.mean([log_softmax(row @ CENTRES.T)[c] for row, c in zip(x[0], y, strict=True)]),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_against_loops(name, x64):
    loss, expected = LOSSES[name]
    compiled = jax.jit(loss)
    for labels, features in draws():
        found = compiled(jnp.asarray(features), jnp.asarray(labels))
        np.testing.assert_allclose(found, expected(features, labels), rtol=1e-9, atol=1e-12, err_msg=str(labels))


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_the_batch_does_not_matter(name, x64):
    loss = jax.jit(LOSSES[name][0])
    for seed, (labels, features) in enumerate(draws()):
        order = np.random.default_rng(seed).permutation(BATCH)
        given, moved = ((jnp.asarray(features[:, o]), jnp.asarray(labels[o])) for o in (np.arange(BATCH), order))
        np.testing.assert_allclose(loss(*moved), loss(*given), rtol=1e-9, atol=1e-12)


@pytest.mark.slow_cases("CIM")
@pytest.mark.parametrize("name", ["3M", "CIM", "hetero-centre"])
def test_chunks_by_place_ignore_labels(name, x64):
    """Cut by place, as the authors do: consecutive chunks, whatever stands in them."""
    by_place = {
        "3M": margins.three_modal_margin_loss,
        "CIM": margins.cross_identity_margin_loss,
        "hetero-centre": centers.hetero_center_loss,
    }[name]
    loops = {
        "3M": lambda x, y: naive_three_modal(x, groups_of(y), 1.0, "l2"),
        "CIM": lambda x, y: naive_cross_identity(x, groups_of(y), 0.5, "l1"),
        "hetero-centre": lambda x, y: by_loops(x, y, "l2", 0.0),
    }[name]
    for _, features in draws():
        for chunks in (3, 9):
            found = by_place(jnp.asarray(features), grouping="positional", num_identities=chunks)
            places = np.arange(BATCH) // (BATCH // chunks)
            np.testing.assert_allclose(found, loops(features, places), rtol=1e-9)
