"""The compiler's options: chosen in one place, left out where they are not known, and given to every program."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.training import compilation, step


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No flag of the environment, nothing asked before."""
    monkeypatch.setenv("XLA_FLAGS", "")
    compilation._known.cache_clear()
    yield
    compilation.choose("auto")
    compilation._known.cache_clear()


def test_this_jaxlib_takes_the_options():
    assert compilation.options() == compilation._WANTED
    assert "auto" in compilation.describe()


def test_plain_is_xlas_own_choice():
    compilation.choose("plain")
    assert compilation.options() == {}
    assert "plain" in compilation.describe()


def test_a_choice_that_does_not_exist_is_named():
    with pytest.raises(UserError, match=r"config.train.compiler is 'fast'; choose one of auto, plain"):
        compilation.choose("fast")


def test_a_flag_of_the_process_stays(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=dot")
    assert compilation.options() == {}


def test_float64_has_none(x64):
    assert compilation.options() == {}


def test_other_backends_have_none(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compilation.options() == {}


@pytest.mark.parametrize("option", [{"xla_cpu_renamed": "1"}, {compilation._FUSIONS: "RENAMED"}])
def test_a_jaxlib_without_them_goes_on_with_one_note(monkeypatch, caplog, option):
    monkeypatch.setattr(compilation, "_WANTED", option)
    assert compilation.options() == compilation.options() == {}
    assert caplog.text.count("XLA's default options") == 1


def test_every_program_of_the_devices_is_compiled_with_them(monkeypatch):
    """Options that XLA does not know stop each of them."""
    monkeypatch.setattr(compilation, "options", lambda: {"xla_nonsense": "1"})
    monkeypatch.setattr(step.augment, "gather", lambda batch, held: batch)
    parallel = step.Parallel(jax.devices()[:1])
    state, batch = jnp.zeros(2), {"x": np.zeros((1, 2), np.float32)}
    calls = [
        lambda: parallel.jit_train(lambda s, b: (s, b))(state, batch),
        lambda: parallel.jit_train(lambda s, b: (s, b), stacked=True)(state, batch),
        lambda: parallel.jit_embed(lambda s, b: b)(state, batch),
        lambda: parallel._gather(batch, {}),
        lambda: parallel._gather_stacked(batch, {}),
    ]
    for call in calls:
        with pytest.raises(jax.errors.JaxRuntimeError, match="xla_nonsense"):
            call()


def test_convolutions_and_their_gradients_are_the_same():
    x, kernel = (np.random.default_rng(i).standard_normal(s) for i, s in enumerate([(2, 9, 7, 8), (3, 3, 8, 16)]))

    def loss(images, weight):
        layout = ("NHWC", "HWIO", "NHWC")
        maps = jax.lax.conv_general_dilated(images, weight, (1, 1), "SAME", dimension_numbers=layout)
        return jnp.square(maps).mean()

    arguments = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
    gradients = [
        jax.jit(jax.grad(loss, (0, 1)), compiler_options=options)(*arguments)
        for options in (compilation.options(), None)
    ]
    for chosen, plain in zip(*gradients, strict=True):
        np.testing.assert_allclose(chosen, plain, atol=1e-5 * float(jnp.abs(plain).max()))
