"""The learning-rate range test: what it reads off a curve, and a run of it on drawn data."""

from __future__ import annotations

import csv
import dataclasses

import jax
import numpy as np
import optax
import pytest

from mmreid_jax import errors
from mmreid_jax.commands import lr_range
from mmreid_jax.testing import tiny
from mmreid_jax.training import step

RATES = np.geomspace(1e-5, 10, 121)
# What was measured on configs/demo.py, smoothed, at every tenth step or so.
DEMO = (
    (1e-6, 3e-6, 4.6e-6, 1.1e-5, 2.5e-5, 5.7e-5, 1.3e-4, 3.1e-4, 7.1e-4, 1.6e-3, 3.8e-3, 8.7e-3, 2e-2, 4.6e-2, 0.11, 1),
    (12.6, 12.57, 12.11, 11.45, 10.7, 9.99, 9.6, 9.38, 9.23, 9.12, 9.04, 8.95, 9.11, 9.79, 10.9, 24),
)


def curve(fall_at, rise_at=None, noise=0.0):
    """A loss that falls from 5 to 2 around one rate and grows without bound around another."""
    decades = np.log10(RATES)
    loss = 2 + 3 / (1 + np.exp(6 * (decades - np.log10(fall_at))))
    if rise_at is not None:
        loss = loss + np.exp(8 * (decades - np.log10(rise_at)))
    return loss + noise * np.random.default_rng(0).normal(size=len(RATES))


def stopped(losses, width=3.0):
    """The losses up to where a test would have stopped."""
    count = next((n for n in range(1, len(losses) + 1) if lr_range.diverges(losses[:n], width)), len(losses))
    return list(losses[:count])


def test_smoothing_leaves_lines_and_takes_noise():
    np.testing.assert_allclose(lr_range.smoothed(np.full(9, 3.0), 2), 3)
    line = np.arange(60.0)
    np.testing.assert_allclose(lr_range.smoothed(line, 2)[15:-15], line[15:-15], atol=1e-6)
    noise = np.random.default_rng(0).normal(size=400)
    assert lr_range.smoothed(noise, 5).std() < 0.4 * noise.std()


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_steepest_descent_is_suggested_and_divergence_is_found(noise):
    losses = stopped(curve(1e-3, 1.0, noise))
    found = lr_range.judge(RATES, losses, 3.0)
    assert len(found.rates) == len(found.losses) == len(found.smooth) == len(losses) < len(RATES)
    assert found.suggested == pytest.approx(1e-3, rel=0.5 if noise else 0.15)
    assert 1.0 < found.diverged < 5
    assert "suggested rate: 1" in lr_range.describe(found, 0.01) or noise
    assert "in the config:  1.0e-02" in lr_range.describe(found, 0.01)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_long_gentle_fall_is_not_judged_by_its_first_steps(noise):
    """As on drawn people: a fresh classifier gains most in its first steps, at rates far too small to train with."""
    rates = np.geomspace(1e-6, 1, 100)
    loss = np.interp(np.log10(rates), np.log10(DEMO[0]), DEMO[1])
    loss = loss + noise * np.random.default_rng(1).normal(size=len(rates))
    found = lr_range.judge(rates, stopped(loss, 2.5), 2.5)
    lowest = found.rates[found.smooth.argmin()]
    assert lowest / 30 < found.suggested < lowest


def test_a_curve_that_only_falls_or_only_grows():
    found = lr_range.judge(RATES, stopped(curve(1e-2)), 3.0)
    assert found.diverged is None
    assert "no divergence up to 1.0e+01" in lr_range.describe(found, 0.01)
    found = lr_range.judge(RATES, list(np.linspace(2, 4, len(RATES))), 3.0)
    assert found.suggested is None
    assert "falls nowhere" in lr_range.describe(found, 0.01)


def test_infinite_losses_stop_the_test_and_stay_out_of_the_curve():
    assert lr_range.diverges([1.0, np.inf], 3.0)
    assert not lr_range.diverges([1.0, 3.9], 3.0)
    found = lr_range.judge(RATES, [3.0, 2.0, np.nan], 1.0)
    assert found.losses.tolist() == [3.0, 2.0]
    assert found.diverged == RATES[2]
    with pytest.raises(errors.UserError, match="not finite"):
        lr_range.judge(RATES, [np.nan], 1.0)


def test_the_factor_on_the_updates_is_the_rate_of_every_group():
    """Biases of HTT train at twice the rate and with momentum; both are kept."""
    config, method = tiny.method("htt")
    shapes = jax.eval_shape(method.init, jax.random.key(0))["params"]
    rng = np.random.default_rng(0)
    params, grads = (
        jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes) for _ in range(2)
    )
    config.optim.update(lr=0.03, schedule="constant", warmup_epochs=0)
    wanted = type(method)(config, method.facts).optimizer(params, np.array([9]))
    unit = type(method)(lr_range.prepared(config), method.facts).optimizer(params, np.array([9]))
    scaled = optax.chain(unit, optax.scale_by_schedule(lambda _: 0.03))
    states = wanted.init(params), scaled.init(params)
    for _ in range(2):
        one, first = wanted.update(grads, states[0], params)
        two, second = scaled.update(grads, states[1], params)
        states = first, second
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8), one, two)


@pytest.mark.slow
def test_the_command_draws_a_curve_and_leaves_no_model(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(lr_range, "from_arguments", lambda _: (small(), "small"))
    whole, one = lr_range.open_experiment, step.Parallel(jax.devices()[:1])
    monkeypatch.setattr(lr_range, "open_experiment", lambda *given: dataclasses.replace(whole(*given), parallel=one))
    out = tmp_path / "range"
    lr_range.main(["--config", "x.py", "--lr_min", "1e-5", "--lr_max", "1e6", "--steps", "24", "--out", str(out)])
    said = capsys.readouterr().out
    assert "diverges at:" in said
    assert {path.name for path in out.iterdir()} == {"lr_range.csv", "lr_range.png"}
    with (out / "lr_range.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert 5 < len(rows) < 24
    np.testing.assert_allclose(
        [float(row["rate"]) for row in rows], np.geomspace(1e-5, 1e6, 24)[: len(rows)], rtol=1e-5
    )


def test_only_curves_are_overwritten(tmp_path):
    rates = np.geomspace(1e-5, 1, 20)
    found = lr_range.judge(rates, np.linspace(3, 1, 20).tolist(), 1.0)
    lr_range.save(found, tmp_path, 0.1)
    lr_range.check_target(tmp_path)
    lr_range.save(found, tmp_path, 0.1)
    for name in ("lr_range.csv", "lr_range.png"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(b"step,rate\n1,2\n")
        with pytest.raises(errors.UserError, match=f"{name} is not overwritten"):
            lr_range.main(["--config", "configs/demo.py", "--out", str(tmp_path)])
        (tmp_path / name).write_bytes(content)


def test_bounds_that_make_no_sense():
    for flags, message in (
        (["--lr_min=0"], "above 0"),
        (["--lr_min=1", "--lr_max=0.1"], "must grow"),
        (["--steps=3"], "at least 10"),
    ):
        with pytest.raises(errors.UserError, match=message):
            lr_range.main(["--config", "configs/demo.py", *flags])
