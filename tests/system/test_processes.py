"""Two processes joined by jax.distributed train as one: loss and whole state after three steps, in float64."""

from __future__ import annotations

import json
import pathlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.testing import tiny
from mmreid_jax.training import state as states
from mmreid_jax.training import step as steps
from tests.data.noise_records import noise_records
from tests.processes import run_two

PROGRAM = """
import jax
jax.config.update("jax_enable_x64", True)
from mmreid_jax.training import distributed
distributed.start()
assert jax.process_count() == 2 and len(jax.devices()) == 4, jax.devices()
import json, sys
from tests.system.test_processes import three_steps
result = three_steps(sys.argv[2], None, (jax.process_index(), 2))
if distributed.is_main():
    json.dump(result, open(sys.argv[1], "w"))
"""


def three_steps(name, devices, shard):
    """Losses and a flat state after three float64 steps of a method, each process feeding its part of the batch."""
    config, method = tiny.method(name)
    variables = jax.jit(method.init)(jax.random.key(0))
    wide = lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x  # noqa: E731
    variables = jax.tree.map(lambda x: np.asarray(wide(x)), variables)
    optimizer = method.optimizer(variables["params"], np.array([4, 8]))
    parallel = steps.Parallel(devices)
    state = parallel.place_state(states.create(variables, optimizer))
    step = parallel.jit_train(steps.train_step(method.loss, optimizer, seed=3))
    losses = []
    for number in range(3):
        batch = tiny.batch(config, seed=number, dtype=np.float64)
        index, count = shard
        size = len(batch["identity"]) // count
        own = jax.tree.map(lambda x, i=index, n=size: x[i * n : (i + 1) * n], batch)
        state, metrics = step(state, parallel.place_batch(own))
        losses.append(float(metrics["loss"]))
    flat = np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(steps.fetch(state.variables))])
    return {"losses": losses, "state": flat.tolist()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["htt", "ieee"])
def test_two_processes_are_one(name, x64, tmp_path):
    out = tmp_path / "result.json"
    run_two(PROGRAM, out, name)
    together = json.loads(out.read_text())
    alone = three_steps(name, jax.devices()[:1], (0, 1))
    np.testing.assert_allclose(together["losses"], alone["losses"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(together["state"], alone["state"], rtol=0, atol=1e-10)


IMAGES_PROGRAM = """
import sys
import jax
import numpy as np
from mmreid_jax.training import distributed
distributed.start()
from mmreid_jax import on_device
from mmreid_jax.data import pipeline, samplers
from mmreid_jax.training import step
from tests.test_on_device import EVERYTHING
from tests.system.test_processes import noise_table

records, parallel = noise_table(sys.argv[1]), step.Parallel()
plan, shard = samplers.pk(records.identity, 2, 4, 1, 0), (jax.process_index(), 2)
for limit in (float("inf"), on_device.SHARE * 40 * 16 * 8 * 3):
    on_device.memory_limit = lambda parallel: limit
    table = on_device.OnDevice("on").open(parallel, records, EVERYTHING, training=True)
    assert table.arrays["images"].sharding.is_fully_replicated == (limit == float("inf"))
    whole = pipeline.train_batches(records, plan, EVERYTHING, seed=1, threads=0)
    named = pipeline.train_batches(records, plan, EVERYTHING, seed=1, threads=0, shard=shard, held=table.host)
    with whole, named:
        for expected, batch in zip(whole, named, strict=True):
            placed = parallel.place_batch(batch, table.arrays)
            for name, pixels in expected["images"].items():
                for part in placed["images"][name].addressable_shards:
                    np.testing.assert_array_equal(part.data, pixels[part.index])
"""


def noise_table(folder):
    """The table that the test has put into a folder."""
    return pickle.loads((pathlib.Path(folder) / "table").read_bytes())


@pytest.mark.slow
def test_two_processes_share_the_images_on_their_devices(tmp_path):
    """Held whole by each of four devices, and in four parts, each process feeding its part of the batch."""
    records = noise_records(tmp_path / "images", counts=(4, 6, 4, 5))
    (tmp_path / "table").write_bytes(pickle.dumps(records))
    run_two(IMAGES_PROGRAM, tmp_path)
