"""What every method must do; each file of ``mmreid_jax/methods`` is found by itself and runs in its tiny variant."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.methods import base
from mmreid_jax.testing import tiny
from mmreid_jax.training import checkpoints, optimizers
from mmreid_jax.training import state as states
from mmreid_jax.training import step as steps

METHODS = base.names()
# Three streams, and three copies with attention between them, take long to compile.
SLOW = {"ieee", "deen"}
EPOCH_ENDS = np.array([4, 8, 12])
# Of the tests of a step, which thereby share what they compile.
STEADY = {"optim__schedule": "constant", "optim__lr": 0.01}


@pytest.fixture(params=[pytest.param(each, marks=[pytest.mark.slow] * (each in SLOW)) for each in METHODS])
def name(request):
    return request.param


@functools.cache
def fresh(name):
    """Initial variables of a tiny method; no option that a test changes has a say in them."""
    return jax.tree.map(np.asarray, jax.jit(tiny.method(name)[1].init)(jax.random.key(0)))


def start(name, dtype=jnp.float32, **overrides):
    """Config, method, batch and the state before the first step, in the given type."""
    config, method = tiny.method(name, **overrides)
    cast = lambda x: jnp.asarray(x, dtype if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype)  # noqa: E731
    variables = jax.tree.map(cast, fresh(name))
    optimizer = method.optimizer(variables["params"], EPOCH_ENDS)
    batch = tiny.batch(config, dtype=dtype)
    return config, method, batch, optimizer, states.create(variables, optimizer)


def certain(name):
    """Options without which a step depends on more than its batch."""
    return {"model__drop_path": 0.0} if "drop_path" in tiny.config(name).model else {}


@functools.cache
def steady(name):
    """A training step of the tiny method, (state, batch) -> (state, metrics); the state before it, and a batch."""
    _, method, batch, optimizer, state = start(name, **STEADY, **certain(name))
    return jax.jit(steps.train_step(method.loss, optimizer, seed=0)), state, batch


@functools.cache
def one_step(name):
    """The state and the metrics after one step of the tiny method."""
    step, state, batch = steady(name)
    return step(state, batch)


def test_there_are_methods_and_each_has_a_tiny_variant():
    assert METHODS
    assert set(METHODS) == set(tiny.TINY)


def test_a_config_names_it(name):
    folder = pathlib.Path(tiny.__file__).parents[2] / "configs"
    modules = [importlib.import_module(f"configs.{path.stem}") for path in sorted(folder.glob("[!_]*.py"))]
    used = {module.get_config().method for module in modules if hasattr(module, "get_config")}
    assert name in used


@pytest.mark.slow_cases("tvi_lfm")
def test_features_are_finite_and_as_long_as_the_batch(name):
    _, method, batch, _, state = start(name)
    features = jax.jit(method.embed)(state.variables, batch)
    for comparison in method.comparisons():
        feature = features[comparison.feature]
        assert feature.ndim == 2
        assert len(feature) == len(batch["identity"])
        assert set(comparison.query) | set(comparison.gallery) <= set(method.facts.modalities)
    assert all(np.isfinite(np.asarray(value)).all() for value in features.values())
    assert all(value.dtype == jnp.float32 for value in features.values())


@pytest.mark.slow_cases("demo_moe", "tvi_lfm")
def test_gradients_are_finite_and_reach_every_trained_parameter(name):
    _, method, batch, _, state = start(name)
    loss = lambda p: method.loss({**state.variables, "params": p}, batch, jax.random.key(1), 0, state.memory)[0]  # noqa: E731
    # A gate that starts at zero lets no gradient pass.
    moved = jax.tree.map(lambda x: x + 0.01, state.params)
    gradients = jax.tree.leaves(jax.jit(jax.grad(loss))(moved))
    paths = jax.tree.leaves(optimizers.paths(state.params))
    for path, gradient in zip(paths, gradients, strict=True):
        assert np.isfinite(np.asarray(gradient)).all(), path
    silent = {path for path, gradient in zip(paths, gradients, strict=True) if not np.asarray(gradient).any()}
    idle = {path for path in paths if any(re.search(pattern, path) for pattern in getattr(method, "idle", ()))}
    assert silent == idle, "dead parameters should not be created"


def test_a_few_steps_lower_the_loss_of_a_fixed_batch(name):
    step, _, batch = steady(name)
    state, before = one_step(name)
    for _ in range(5):
        state, _ = step(state, batch)
    # With the random numbers of the first step again.
    _, after = step(dataclasses.replace(state, step=jnp.zeros_like(state.step)), batch)
    assert float(after["loss"]) < float(before["loss"])


def test_the_terms_say_what_the_total_is_made_of(name):
    _, metrics = one_step(name)
    assert len(metrics) > 4
    assert all(np.isfinite(float(value)) for value in metrics.values())


def run_three_steps(name, devices, dtype, adapt=False):
    config, method, batch, optimizer, state = start(name, dtype)
    parallel = steps.Parallel(devices)
    loss = method.loss
    if adapt:
        loss = method.adapt_loss
        optimizer = method.adapt_optimizer(state.params, EPOCH_ENDS)
        state = states.create(state.variables, optimizer)
    step = parallel.jit_train(steps.train_step(loss, optimizer, seed=3))
    state = parallel.place_state(state)
    losses = []
    for number in range(3):
        batch = tiny.batch(config, seed=number, dtype=dtype)
        state, metrics = step(state, parallel.place_batch(batch))
        losses.append(steps.fetch(metrics))
    return losses, steps.fetch(state)


@pytest.mark.slow
@pytest.mark.parametrize("adapt", [False, True])
def test_eight_devices_are_one_device(name, adapt, x64):
    """Loss and whole state after three steps; a loss mined on a local shard would be off by about 1e-1."""
    if adapt and not hasattr(tiny.method(name)[1], "adapt_loss"):
        return
    assert len(jax.devices()) >= 8
    run = functools.partial(run_three_steps, name, dtype=jnp.float64, adapt=adapt)
    one, eight = run(jax.devices()[:1]), run(jax.devices()[:8])
    expected, actual = jax.tree.leaves_with_path(one), jax.tree.leaves(eight)
    for (path, wanted), got in zip(expected, actual, strict=True):
        scale = max(1.0, float(np.abs(wanted).max(initial=0.0)))
        error = float(np.abs(np.asarray(got, np.float64) - np.asarray(wanted, np.float64)).max(initial=0.0))
        assert error <= 1e-10 * scale, f"{jax.tree_util.keystr(path)}: {error:.3g}"


def refusal(name, **overrides):
    """What a method says of a config that it cannot run; empty where it can."""
    try:
        tiny.method(name, **overrides)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.slow_cases("demo_moe", "htt", "mdreid")
def test_micro_batches_change_nothing_but_memory(name, x64):
    """The backbone sees parts of the batch, the losses all of it; where that cannot be, the method says so."""
    if said := refusal(name, train__micro_batches=4):
        assert "micro_batches" in said
        return
    results = []
    for parts in (1, 4):
        config, method, batch, optimizer, state = start(name, jnp.float64, train__micro_batches=parts)
        del config
        step = jax.jit(steps.train_step(method.loss, optimizer, seed=5))
        results.append(steps.fetch(step(state, batch)))
    for wanted, got in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-11 * max(1.0, np.abs(wanted).max(initial=0.0)))


def test_bfloat16_stays_close_to_float32(name):
    features = {}
    for dtype in ("float32", "bfloat16"):
        _, method, batch, _, state = start(name, model__dtype=dtype)
        features[dtype] = np.asarray(jax.jit(method.embed)(state.variables, batch)[method.comparisons()[0].feature])
    error = np.linalg.norm(features["bfloat16"] - features["float32"]) / np.linalg.norm(features["float32"])
    assert 0 < error < 0.05


def test_checkpoint_round_trip(name, tmp_path):
    state, _ = one_step(name)
    with checkpoints.Checkpoints(tmp_path / "checkpoints") as store:
        store.save(1, state, {"note": "round trip"})
        store.wait()
        restored, meta = store.restore(steps.abstract(state))
    assert meta["note"] == "round trip"
    for wanted, got in zip(jax.tree.leaves(state), jax.tree.leaves(restored), strict=True):
        np.testing.assert_array_equal(np.asarray(wanted), np.asarray(got))
