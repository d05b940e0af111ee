"""Heads of features."""

from __future__ import annotations

import jax
import numpy as np

from mmreid_jax.models.heads import BNNeck


def test_bnneck_is_linear_in_its_classifier():
    neck = BNNeck(7)
    features = jax.random.normal(jax.random.key(0), (5, 4))
    variables = neck.init(jax.random.key(1), features, False)
    after, logits = neck.apply(variables, features, False)
    np.testing.assert_allclose(logits, after @ variables["params"]["classifier"]["kernel"], rtol=1e-5)
