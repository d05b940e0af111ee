"""What a step is said to take, against shapes counted by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.training import forecast

WIDTH, HIDDEN, IMAGES = 6, 10, 5
VARIABLES = {
    "params": {
        "one": jax.ShapeDtypeStruct((WIDTH, HIDDEN), np.float32),
        "two": jax.ShapeDtypeStruct((HIDDEN, 3), np.float32),
    }
}
BATCH = {"images": jax.ShapeDtypeStruct((1, WIDTH), np.float32)}


def embed(variables, batch):
    hidden = jnp.maximum(batch["images"] @ variables["params"]["one"], 0)
    return {"feature": hidden @ variables["params"]["two"]}


def test_products_and_memory_of_two_layers():
    expected = forecast.forecast(embed, VARIABLES, BATCH, IMAGES)
    assert expected.multiply_adds == 3 * IMAGES * (WIDTH * HIDDEN + HIDDEN * 3)
    parameters = 4 * (WIDTH * HIDDEN + HIDDEN * 3)
    kept = 4 * (HIDDEN + HIDDEN + 3)
    assert expected.memory == forecast.STATES * parameters + IMAGES * kept
    assert expected.seconds > 0


def test_a_scan_counts_as_often_as_it_turns():
    def turned(variables, batch):
        def body(carried, _):
            return carried @ variables["params"]["square"], None

        return {"feature": jax.lax.scan(body, batch["images"], length=7)[0]}

    square = {"params": {"square": jax.ShapeDtypeStruct((WIDTH, WIDTH), np.float32)}}
    assert forecast.forecast(turned, square, BATCH, 1).multiply_adds == 3 * 7 * WIDTH * WIDTH


@pytest.mark.parametrize(
    ("seconds", "memory", "warned"),
    [(0.01, 2**20, False), (100.0, 2**20, True), (0.01, 2**60, True), (None, 2**60, False)],
)
def test_a_cpu_is_warned(monkeypatch, seconds, memory, warned):
    monkeypatch.setattr(forecast, "memory_of_machine", lambda: 2**34)
    lines = forecast.Forecast(10**9, memory, seconds).describe(1000)
    assert lines[0].startswith("a step: about 1 G multiply-adds")
    assert ("s on this CPU" in lines[0]) == (seconds is not None)
    assert (len(lines) == 2) == warned
    assert all("\n" not in line for line in lines)
