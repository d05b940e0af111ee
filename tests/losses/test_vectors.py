"""Vector arithmetic of the losses, against numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.losses import vectors

ROWS = np.random.default_rng(0).normal(size=(5, 7))


def test_half_precision_is_left_and_double_precision_kept(x64):
    types = {"bfloat16": "float32", "float16": "float32", "float32": "float32", "float64": "float64"}
    assert {name: str(vectors.at_least_float32(jnp.zeros(2, name)).dtype) for name in types} == types


def test_rows_get_length_one_and_zeros_stay(x64):
    rows = np.concatenate([ROWS, np.zeros((1, 7))])
    found = vectors.l2_normalise(rows)
    np.testing.assert_allclose(found[:-1], ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True), rtol=1e-12)
    np.testing.assert_array_equal(found[-1], 0)
    assert np.isfinite(jax.grad(lambda x: vectors.l2_normalise(x)[:, 0].sum())(jnp.asarray(rows))).all()


@pytest.mark.parametrize("distance", vectors.DISTANCES)
def test_distances_between_rows_match_a_loop(distance, x64):
    def of_pair(a, b):
        if distance == "l1":
            return np.abs(a - b).mean()
        if distance == "l2":
            return np.square(a - b).sum()
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    expected = [[of_pair(a, b) for b in ROWS] for a in ROWS]
    np.testing.assert_allclose(vectors.distances_between_rows(jnp.asarray(ROWS), distance), expected, rtol=1e-12)


def test_copies_of_a_row_are_as_far_from_everything():
    rows = jnp.asarray(np.repeat(ROWS, 2, axis=0), jnp.float32)
    found = np.asarray(vectors.distances_between_rows(rows, "l2"))
    np.testing.assert_array_equal(found[::2], found[1::2])


def test_an_unknown_distance_is_named():
    with pytest.raises(UserError, match="unknown distance 'l3' of a margin loss; choose one of l1, l2, cos"):
        vectors.check_distance("l3")
