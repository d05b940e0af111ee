"""The whole program with TVI-LFM on drawn people with captions: both stages, resumed, on eight devices, evaluated."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax import evaluate, train
from mmreid_jax.errors import UserError
from mmreid_jax.testing import tiny
from mmreid_jax.training import state as states
from mmreid_jax.training import step as steps
from tests.system.test_runs import assert_same_state, final_state, train_in_two_parts

BASE = {"model__stage": "base", "eval__feature": "fc", "data__text": False}


def scores(workdir):
    return [json.loads(line) for line in (workdir / "scores.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_both_stages_resumed_and_evaluated(tiny_run, tmp_path, monkeypatch, capsys):
    """Each stage interrupted in its second epoch is what it is in one go, bit for bit; then all four kinds of query."""
    base, text = {}, {}
    for name in ("whole", "parts"):
        base[name], text[name] = tmp_path / name / "base", tmp_path / name / "text"
        for stage, options in ((base, BASE), (text, {"init__from_base": str(base[name])})):
            config = tiny_run("tvi_lfm", **options)
            if name == "whole":
                train.main(config, stage[name])
            else:
                total = final_state(stage["whole"])[0]
                train_in_two_parts(config, stage[name], monkeypatch, total // 2 + 2)
    for stage in (base, text):
        assert_same_state(final_state(stage["whole"]), final_state(stage["parts"]))
    assert "base model from" in capsys.readouterr().out
    before, after = final_state(base["whole"])[1], final_state(text["whole"])[1]
    for path, value in before.items():
        if path.startswith("['params']['backbone']"):
            np.testing.assert_array_equal(after[path], value, err_msg=path)
    drifted = "['batch_stats']['backbone']['shared']['layer1_0']['bn1']['mean']"
    assert not np.array_equal(after[drifted], before[drifted])
    found = scores(text["whole"])
    assert [row["comparison"] for row in found] == [f"{name} nir to rgb" for name in ("fusion", "mer", "ir", "text")]
    assert all(0 < row["mAP"] < 1 for row in found)
    config = tiny_run("tvi_lfm", init__checkpoint=str(text["whole"]), eval__feature="mer", init__which="last")
    evaluate.main(config, tmp_path / "again")
    again = {row["comparison"]: row["mAP"] for row in scores(tmp_path / "again")}
    assert next(iter(again)) == "mer nir to rgb"
    assert set(again) == {row["comparison"] for row in found}


@pytest.mark.slow
def test_a_run_that_is_no_base_model_is_refused(tiny_run, tmp_path):
    train.main(tiny_run("agw", optim__epochs=1), tmp_path / "agw")
    with pytest.raises(UserError, match="no run of TVI-LFM's base stage"):
        train.main(tiny_run("tvi_lfm", init__from_base=str(tmp_path / "agw")), tmp_path / "text")


@pytest.mark.slow
def test_base_stage_on_eight_devices_is_that_on_one(x64):
    """The text stage is compared with the other methods, see ``tests/methods/test_every_method.py``."""
    config, method = tiny.method("tvi_lfm", **BASE)
    cast = lambda x: jnp.asarray(x, jnp.float64 if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype)  # noqa: E731
    variables = jax.tree.map(cast, jax.jit(method.init)(jax.random.key(0)))
    results = []
    for count in (1, 8):
        optimizer = method.optimizer(variables["params"], np.array([4, 8]))
        parallel = steps.Parallel(jax.devices()[:count])
        step = parallel.jit_train(steps.train_step(method.loss, optimizer, seed=3))
        state = parallel.place_state(states.create(jax.tree.map(np.asarray, variables), optimizer))
        for number in range(3):
            state, metrics = step(state, parallel.place_batch(tiny.batch(config, seed=number, dtype=jnp.float64)))
        results.append(steps.fetch((state, metrics)))
    for (path, wanted), got in zip(jax.tree.leaves_with_path(results[0]), jax.tree.leaves(results[1]), strict=True):
        error = float(np.abs(np.asarray(got, np.float64) - np.asarray(wanted, np.float64)).max(initial=0.0))
        assert error <= 1e-10 * max(1.0, float(np.abs(wanted).max(initial=0.0))), jax.tree_util.keystr(path)
