"""HTT's test-time training: which statistics its batch norms see. All else: test_every_method.py and tests/parity."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.losses import adaptation
from mmreid_jax.testing import tiny

PAIR = {"train__identities_per_batch": 2, "train__images_per_identity": 1}


def adapted(backbone, statistics):
    """(method, variables with odd statistics, a pair of samples, loss, new statistics)."""
    config, method = tiny.method(
        "htt", model__backbone=backbone, model__drop_path=0.0, mtt__statistics=statistics, **PAIR
    )
    variables = method.init(jax.random.key(0))
    stats = jax.tree.map(lambda x: x + 0.3 * jnp.ones_like(x), variables["batch_stats"])
    # Logits of fresh classifiers are all but equal.
    params = jax.tree.map(lambda x: x, variables["params"])
    params["classifier"]["kernel"] = jax.random.normal(jax.random.key(1), params["classifier"]["kernel"].shape)
    variables = {"params": params, "batch_stats": stats}
    batch = tiny.batch(config)
    loss, (_, new, _) = jax.jit(method.adapt_loss)(variables, batch, jax.random.key(2), 0, {})
    return method, variables, batch, loss, new


@pytest.mark.parametrize("backbone", ["vit_micro", "resnet_nano"])
def test_kept_statistics_stay_and_are_used(backbone):
    """The loss is that of the features and pseudo labels that retrieval sees."""
    method, variables, batch, loss, new = adapted(backbone, "kept")
    jax.tree.map(np.testing.assert_array_equal, new, variables["batch_stats"])
    embedded = method.embed(variables, batch)
    features = jnp.stack([embedded[name] for name in method.facts.modalities])
    logits = embedded["after"] @ variables["params"]["classifier"]["kernel"]
    expected, _ = adaptation.mtt_loss(features, logits)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("backbone", ["vit_micro", "resnet_nano"])
def test_statistics_of_the_batch_move_the_running_ones(backbone):
    _, variables, _, _, new = adapted(backbone, "batch")
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), new, variables["batch_stats"])
    assert all(jax.tree.leaves(moved))
