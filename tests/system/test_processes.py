"""Two processes joined by jax.distributed train as one: loss and whole state after three steps, in float64."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.testing import tiny
from mmreid_jax.training import state as states
from mmreid_jax.training import step as steps

ROOT = pathlib.Path(__file__).parents[2]
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out = tmp_path / "result.json"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": "2",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", PROGRAM, str(out), name]
    processes = [
        subprocess.Popen(command, cwd=ROOT, env={**environment, "JAX_PROCESS_ID": str(i)}, stderr=subprocess.PIPE)
        for i in range(2)
    ]
    for process in processes:
        _, said = process.communicate(timeout=900)
        assert process.returncode == 0, said.decode()[-3000:]
    together = json.loads(out.read_text())
    alone = three_steps(name, jax.devices()[:1], (0, 1))
    np.testing.assert_allclose(together["losses"], alone["losses"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(together["state"], alone["state"], rtol=0, atol=1e-10)
