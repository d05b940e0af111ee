"""MDReID's losses against slow, obvious forms, and what they are least for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.losses import decoupling

LABELS = np.array([0, 0, 3, 3, 5, 5])


def drawn(modalities=3, width=8, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.normal(size=(modalities, len(LABELS), width))) for _ in range(2))


@pytest.mark.parametrize("modalities", [2, 3])
def test_orthogonality_sample_by_sample(modalities, x64):
    specific, shared = drawn(modalities)
    total = 0.0
    for sample in range(len(LABELS)):
        rows = np.concatenate([np.asarray(specific)[:, sample], np.asarray(shared)[:, sample]])
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        cosines = rows @ rows.T
        directions = cosines / np.sqrt((cosines**2).sum(1, keepdims=True) + 1e-6)
        wanted = np.eye(2 * modalities)
        wanted[modalities:, modalities:] = 1
        total += ((directions @ directions.T - wanted) ** 2).mean()
    assert float(decoupling.orthogonality(specific, shared)) == pytest.approx(total / len(LABELS), rel=1e-10)


def test_orthogonality_is_zero_where_it_should_be(x64):
    """Specific features at right angles to everything, shared ones all in one direction, of any length."""
    axes = jnp.eye(4)
    specific = 2.0 * jnp.repeat(axes[:3, None], 5, axis=1)
    shared = jnp.array([1.0, 0.5, 3.0])[:, None, None] * jnp.repeat(axes[None, 3:], 5, axis=1)
    assert float(decoupling.orthogonality(specific, shared)) < 1e-11


@pytest.mark.slow(short=True)
def test_disentangling_by_loops_and_its_gradient(x64):
    specific, shared = drawn()
    apart = {"p": {}, "n": {}}
    kinds = {"both": jnp.concatenate([specific, shared]), "specific": specific, "shared": shared}
    for kind, features in kinds.items():
        rows = np.concatenate(list(np.asarray(features)), axis=-1)
        distances = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
        same = LABELS[:, None] == LABELS
        apart["p"][kind] = max(row[hits].max() for row, hits in zip(distances, same, strict=True))
        apart["n"][kind] = min(row[~hits].min() for row, hits in zip(distances, same, strict=True))
    shares = {name: values["both"] / sum(values.values()) for name, values in apart.items()}
    loss = lambda x, y: decoupling.disentangling(x, y, jnp.asarray(LABELS))  # noqa: E731
    assert float(loss(specific, shared)) == pytest.approx(shares["p"] + abs(shares["n"] - 1), rel=1e-10)
    # Two pairs of samples alone decide, so that at most four have a gradient.
    gradient = jax.grad(loss)(specific, shared)
    assert 0 < int((jnp.abs(gradient).sum((0, 2)) > 0).sum()) <= 4
