"""CLIP's towers on small sizes: what they see and what not. Their numbers are in ``tests/parity/test_clip_*.py``."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.models import clip

END = 99
SIZES = {**clip.TEXT_TOWERS["text_micro"], "vocabulary": END + 1, "length": 12}


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def tower():
    """A text tower with its variables and its compiled forward pass."""
    network = clip.TextTower(**SIZES)
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, SIZES["length"]), jnp.int32))
    return variables, jax.jit(network.apply)


def text(*numbers, length=SIZES["length"]):
    return jnp.asarray([[*numbers, *[0] * (length - len(numbers))]], jnp.int32)


def test_feature_is_read_at_the_first_end_mark(tower):
    variables, run = tower
    feature = run(variables, text(98, 5, 7, END))
    assert feature.shape == (1, SIZES["out"])
    # What follows is not seen, be it another end mark.
    np.testing.assert_allclose(run(variables, text(98, 5, 7, END, 3, END, 9)), feature, rtol=1e-5, atol=1e-6)
    assert np.abs(run(variables, text(98, 5, 8, END)) - feature).max() > 1e-2


def test_shorter_rows_give_the_same(tower):
    variables, run = tower
    whole, cut = run(variables, text(98, 5, 7, END)), run(variables, text(98, 5, 7, END, length=6))
    np.testing.assert_allclose(cut, whole, rtol=1e-5, atol=1e-6)


def test_remat_gives_the_same_gradients(tower):
    variables, _ = tower
    tokens = text(98, 5, 7, END)

    def gradient(**options):
        network = clip.TextTower(**SIZES, **options)
        return jax.jit(jax.grad(lambda v: jnp.square(network.apply(v, tokens)).sum()))(variables)

    plain, again = gradient(), gradient(remat=True)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), plain, again)
    # Every token has a row in the gradient, whether a text has it or not.
    rows = np.abs(plain["params"]["token_embed"]).max(1) > 0
    np.testing.assert_array_equal(np.flatnonzero(rows), [5, 7, 98, END])


def test_half_precision_keeps_parameters_whole(tower):
    variables, _ = tower
    network = clip.TextTower(**SIZES, dtype=jnp.bfloat16)
    feature = jax.jit(network.apply)(variables, text(98, 5, END))
    assert feature.dtype == jnp.bfloat16
    exact = clip.TextTower(**SIZES).apply(variables, text(98, 5, END))
    assert np.abs(np.asarray(feature, np.float32) - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize(("name", "parameters"), [("clip_rn50", 63_690_240), ("clip_vit_b16", 63_428_096)])
def test_parameter_count(name, parameters):
    network = clip.TextTower(**clip.TEXT_TOWERS[name])
    assert count(jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 77), jnp.int32))) == parameters
