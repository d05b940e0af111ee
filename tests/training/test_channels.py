"""Channel augmentations: against an obvious loop, their law, and their types."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.training import channels


def images(dtype=np.float32):
    return np.random.default_rng(0).normal(size=(10, 4, 3, 3)).astype(dtype)


def one_by_one(pictures, choices):
    """Pixel after pixel."""
    out = pictures.copy()
    for i, choice in enumerate(choices):
        for pixel in np.ndindex(pictures.shape[1:3]):
            r, g, b = (float(value) for value in pictures[(i, *pixel)])
            if choice < 3:
                out[(i, *pixel)] = (r, g, b)[choice]
            elif choice == channels.GREY:
                out[(i, *pixel)] = 0.2989 * r + 0.5870 * g + 0.1140 * b
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("compiled", [True, False])
def test_every_choice(dtype, compiled, x64):
    wrap = jax.jit if compiled else (lambda function: function)
    for function, choices in ((channels.exchange, [0, 1, 2, 3]), (channels.adaptive_grey, [0, 1, 2, 3, 4])):
        choice = np.resize(choices, 10)
        found = wrap(function)(jnp.asarray(images(dtype)), jnp.asarray(choice))
        assert found.dtype == dtype
        np.testing.assert_allclose(found, one_by_one(images(dtype), choice), rtol=0, atol=np.finfo(dtype).eps * 4)


def test_channels_are_copied_bit_for_bit():
    found = np.asarray(channels.adaptive_grey(images(), jnp.asarray([0, 1, 2, 4] * 2 + [4, 4])))
    np.testing.assert_array_equal(found[1], np.repeat(images()[1, ..., 1:2], 3, axis=2))
    np.testing.assert_array_equal(found[3], images()[3])


@pytest.mark.parametrize(
    ("draw", "shares"),
    [
        (lambda key, n: channels.draw_exchange(key, n), [1 / 3] * 3 + [0, 0]),
        (lambda key, n: channels.draw_exchange(key, n, grey=True), [1 / 4] * 4 + [0]),
        (lambda key, n: channels.draw_exchange(key, n, share=0.5), [1 / 6] * 3 + [0, 1 / 2]),
        (lambda key, n: channels.draw_adaptive_grey(key, n), [1 / 4] * 3 + [1 / 8] * 2),
        (lambda key, n: channels.draw_adaptive_grey(key, n, grey=0.6), [1 / 4] * 3 + [0.15, 0.1]),
        (lambda key, n: channels.draw_adaptive_grey(key, n, grey=0), [1 / 4] * 3 + [0, 1 / 4]),
    ],
)
def test_law_of_the_choices(draw, shares):
    count = 40000
    choice = draw(jax.random.key(1), count)
    assert choice.shape == (count,)
    assert choice.dtype == jnp.int32
    found, shares = np.bincount(choice, minlength=5), np.array(shares)
    assert np.all(np.abs(found - count * shares) <= 5 * np.sqrt(count * shares * (1 - shares)))
    assert not np.array_equal(choice, draw(jax.random.key(2), count))
    np.testing.assert_array_equal(choice, draw(jax.random.key(1), count))
