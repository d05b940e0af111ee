"""Placing batches, and several steps in one call, with a small made-up loss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmreid_jax.testing import tiny
from mmreid_jax.training import state, step

SIZE = (4, 3)
PIXELS = SIZE[0] * SIZE[1] * 3


def loss(variables, batch, key, at_step, memory):
    """Reads images, labels, the random key, the number of the step and what earlier steps left."""
    x = batch["images"]["rgb"].reshape(len(batch["identity"]), -1)
    logits = jnp.tanh(x @ variables["params"]["weight"]) + 0.1 * jax.random.normal(key, (5,))
    each = optax.softmax_cross_entropy_with_integer_labels(logits, batch["identity"])
    total = each.mean() * (1 + 0.01 * at_step) + 0.1 * memory["mean"]
    return total, ({"cross_entropy": each.mean()}, variables["batch_stats"], {"mean": each.mean()})


def batches(count):
    rng = np.random.default_rng(0)
    return [
        {
            "augment": {
                "rgb": {
                    "row": rng.integers(0, 20, 8).astype(np.int32),
                    "shift": rng.integers(-1, 2, (8, 2)).astype(np.int32),
                }
            },
            "erase": {"rgb": rng.integers(0, 3, (8, 4)).astype(np.int32)},
            "identity": rng.integers(0, 5, 8).astype(np.int32),
            "index": np.arange(8, dtype=np.int32),
            "valid": np.ones(8, bool),
        }
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def parallel():
    return step.Parallel()


@pytest.fixture(scope="module")
def held(parallel):
    pixels = np.random.default_rng(1).integers(0, 256, (20, *SIZE, 3), dtype=np.uint8)
    return {"images": parallel.place_state(pixels)}


def start(parallel, optimizer):
    weight = np.random.default_rng(2).normal(size=(PIXELS, 5)).astype(np.float32)
    variables = {"params": {"weight": weight}, "batch_stats": {}}
    return parallel.place_state(state.create(variables, optimizer, {"mean": np.zeros((), np.float32)}))


def test_several_steps_in_one_call_are_single_steps(parallel, held):
    """States and the metrics of every step; the scan is another program than the step, and may round differently."""
    optimizer = optax.adam(1e-2)
    run = parallel.jit_steps(step.train_step(loss, optimizer, seed=4))
    found = {}
    for sizes in ((1, 1, 1, 1, 1, 1, 1), (3, 1, 3)):
        current, waiting, logged = start(parallel, optimizer), batches(7), []
        for size in sizes:
            current, metrics = run(current, waiting[:size], held)
            waiting, logged = waiting[size:], [*logged, *metrics]
        found[sizes] = step.fetch((current, logged))
    (one, ones), (several, many) = found.values()
    assert int(one.step) == int(several.step) == 7
    assert len(ones) == len(many) == 7
    close = lambda x, y: np.testing.assert_allclose(y, x, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, (one, ones), (several, many))
    assert len({float(metrics["loss"]) for metrics in many}) == 7


def test_columns_of_the_host_stay_there(parallel, held):
    (batch,) = batches(1)
    assert set(parallel.place_batch(batch)) == {"augment", "erase", "identity"}
    placed = parallel.place_batch(batch, held, keep=("index",))
    assert set(placed) == {"images", "erase", "identity", "index"}
    assert placed["images"]["rgb"].sharding.is_equivalent_to(parallel.split, 4)
    assert parallel.place_batches(batches(3))["identity"].sharding.is_equivalent_to(parallel.stacked, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["htt", "caj", "ddag"])
def test_several_steps_of_whole_networks(x64, parallel, name):
    """In float64: in float32 the normalisation of uint8 images rounds differently in the two programs."""
    config, method = tiny.method(name, train__identities_per_batch=4, train__images_per_identity=2)
    wide = lambda x: np.asarray(x, np.float64 if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype)  # noqa: E731
    variables = jax.tree.map(wide, method.init(jax.random.key(0)))
    ends = np.array([2, 4])
    optimizer = method.optimizer(variables["params"], ends)
    memory = method.start_memory(ends) if hasattr(method, "start_memory") else {}
    drawn = [tiny.batch(config, seed=number, dtype=np.float64) for number in range(4)]
    run = parallel.jit_steps(step.train_step(method.loss, optimizer, seed=3))
    found = []
    for sizes in ((1, 1, 1, 1), (1, 3)):
        current, waiting = parallel.place_state(step.fetch(state.create(variables, optimizer, memory))), list(drawn)
        losses = []
        for size in sizes:
            current, metrics = run(current, waiting[:size])
            waiting = waiting[size:]
            losses += [values["loss"] for values in metrics]
        found.append(step.fetch((current, losses)))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(other, one, rtol=1e-10, atol=1e-12), *found)
