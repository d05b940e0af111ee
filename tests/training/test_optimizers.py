import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.training import optimizers
from mmreid_jax.training.optimizers import Group, OptimizerOptions
from mmreid_jax.training.schedules import Schedule

SHAPES = {
    "backbone": {"conv": {"kernel": (3, 2), "bias": (2,)}, "norm": {"scale": (2,), "bias": (2,)}},
    "bottleneck": {"scale": (4,), "bias": (4,)},
    "classifier": {"kernel": (4, 3)},
}
ENDS = np.array([2, 3, 5])
FALLING = {"schedule": "multi_step", "milestones": (1, 2), "decay": 0.3}


def _tree(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: rng.normal(size=s).astype(dtype), SHAPES, is_leaf=lambda s: isinstance(s, tuple))


def _run(options, groups=(), steps=5, dtype=np.float64, gradient_scale=1.0):
    """Parameters after each step, as a list of flat dicts of numpy arrays."""
    params = jax.tree.map(jnp.asarray, _tree(0, dtype))
    optimizer = optimizers.build(options, params, ENDS, groups)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    trajectory = []
    for s in range(steps):
        grads = jax.tree.map(lambda g: gradient_scale * g, _tree(100 + s, dtype))
        params, state = step(params, state, grads)
        trajectory.append(_flat(params))
    return trajectory


def _flat(tree):
    return dict(zip(jax.tree.leaves(optimizers.paths(tree)), map(np.asarray, jax.tree.leaves(tree)), strict=True))


def _torch(update, rates, decays, steps=5, gradient_scale=1.0):
    """The same trajectory by PyTorch's documented algorithm, one tensor at a time, in float64.

    `update(memory, g, w, decay, rate, t)` returns the new parameter; t counts from 1.
    """
    params, memory, trajectory = _flat(_tree(0)), {}, []
    for s in range(steps):
        grads = _flat(_tree(100 + s))
        for name in params:
            if decays[name] is not None:
                params[name] = update(
                    memory.setdefault(name, {}), gradient_scale * grads[name], params[name], decays[name],
                    rates[name][s], s + 1,
                )  # fmt: skip
        trajectory.append(dict(params))
    return trajectory


def _sgd(momentum=0.9, nesterov=False):
    def update(memory, g, w, decay, rate, t):
        g = g + decay * w
        memory["v"] = g if t == 1 else momentum * memory["v"] + g
        return w - rate * (g + momentum * memory["v"] if nesterov else memory["v"])

    return update


def _adam(decoupled):
    def update(memory, g, w, decay, rate, t):
        if decoupled:
            w = w * (1 - rate * decay)
        else:
            g = g + decay * w
        memory["m"] = 0.9 * memory.get("m", 0.0) + 0.1 * g
        memory["v"] = 0.999 * memory.get("v", 0.0) + 0.001 * g * g
        return w - rate / (1 - 0.9**t) * memory["m"] / (np.sqrt(memory["v"]) / np.sqrt(1 - 0.999**t) + 1e-8)

    return update


def _amsgrad(memory, g, w, decay, rate, t):
    """With a short memory of squares, beta2 = 0.5: their largest mean is often not the last one."""
    g = g + decay * w
    memory["m"] = 0.9 * memory.get("m", 0.0) + 0.1 * g
    memory["v"] = 0.5 * memory.get("v", 0.0) + 0.5 * g * g
    memory["max"] = np.maximum(memory.get("max", 0.0), memory["v"])
    return w - rate / (1 - 0.9**t) * memory["m"] / (np.sqrt(memory["max"]) / np.sqrt(1 - 0.5**t) + 1e-8)


def _rmsprop(memory, g, w, decay, rate, t):
    g = g + decay * w
    memory["v"] = 0.99 * memory.get("v", 0.0) + 0.01 * g * g
    memory["b"] = 0.9 * memory.get("b", 0.0) + g / (np.sqrt(memory["v"]) + 1e-8)
    return w - rate * memory["b"]


def _radam(memory, g, w, decay, rate, t):
    memory["m"] = 0.9 * memory.get("m", 0.0) + 0.1 * g
    memory["v"] = 0.999 * memory.get("v", 0.0) + 0.001 * g * g
    rho, w = 1999.0, w * (1 - rate * decay)
    rho_t = rho - 2 * t * 0.999**t / (1 - 0.999**t)
    m = memory["m"] / (1 - 0.9**t)
    if rho_t < 5:
        return w - rate * m
    r = np.sqrt((rho_t - 4) * (rho_t - 2) * rho / ((rho - 4) * (rho - 2) * rho_t))
    return w - rate * r * np.sqrt(1 - 0.999**t) * m / (np.sqrt(memory["v"]) + 1e-8)


def _uniform(rates, decay):
    names = _flat(_tree(0))
    return dict.fromkeys(names, rates), dict.fromkeys(names, decay)


def _assert_equal(got, expected, rtol=1e-12):
    for step, (a, b) in enumerate(zip(got, expected, strict=True)):
        for name in b:
            np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=rtol, err_msg=f"step {step}, {name}")


RATES = [0.1, 0.1, 0.03, 0.009, 0.009]


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_pytorchs(x64, nesterov):
    options = OptimizerOptions("sgd", 0.1, weight_decay=0.05, nesterov=nesterov, **FALLING)
    _assert_equal(_run(options), _torch(_sgd(0.9, nesterov), *_uniform(RATES, 0.05)))


def test_sgd_without_momentum_keeps_no_state(x64):
    options = OptimizerOptions("sgd", 0.1, weight_decay=0.05, momentum=0.0, **FALLING)
    _assert_equal(_run(options), _torch(_sgd(0.0), *_uniform(RATES, 0.05)))
    state = optimizers.build(options, _tree(0), ENDS).init(_tree(0))
    assert [leaf.shape for leaf in jax.tree.leaves(state)] == [()]


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_is_pytorchs(x64, name):
    options = OptimizerOptions(name, 0.1, weight_decay=0.05, **FALLING)
    _assert_equal(_run(options), _torch(_adam(name == "adamw"), *_uniform(RATES, 0.05)))


@pytest.mark.parametrize(("name", "update"), [("amsgrad", _amsgrad), ("rmsprop", _rmsprop), ("radam", _radam)])
def test_the_other_rules_are_pytorchs(x64, name, update):
    """Ten steps, of which radam rectifies the last ones; small gradients show where epsilon is added."""
    options = OptimizerOptions(name, 0.1, weight_decay=0.05, beta2=0.5 if name == "amsgrad" else 0.999, **FALLING)
    rates = [*RATES, *[RATES[-1]] * 5]
    for scale in (1.0, 1e-4):
        got = _run(options, steps=10, gradient_scale=scale)
        _assert_equal(got, _torch(update, *_uniform(rates, 0.05), steps=10, gradient_scale=scale), rtol=1e-11)


@pytest.mark.parametrize("name", ["amsgrad", "rmsprop", "radam"])
def test_the_other_rules_stay_float32(name):
    got = _run(OptimizerOptions(name, 0.1, weight_decay=0.05, **FALLING), dtype=np.float32, steps=8)
    assert {value.dtype for value in got[-1].values()} == {np.dtype(np.float32)}
    assert all(np.all(np.isfinite(value)) for value in got[-1].values())


def test_new_layers_train_at_the_full_rate_and_all_others_slowly(x64):
    options = OptimizerOptions(
        "sgd", 0.1, weight_decay=0.05, new_layers=("^classifier/",), base_lr_factor=0.1, **FALLING
    )
    rates, decays = _uniform([0.1 * rate for rate in RATES], 0.05)
    rates["classifier/kernel"] = RATES
    _assert_equal(_run(options), _torch(_sgd(), rates, decays))
    with pytest.raises(UserError, match="matches no parameter"):
        _run(OptimizerOptions("sgd", 0.1, new_layers=("^clasifier/",)))


def test_biases_of_new_layers_have_a_rate_of_their_own(x64):
    new = ("^bottleneck/", "^classifier/")
    options = OptimizerOptions("sgd", 0.1, new_layers=new, base_lr_factor=0.1, bias_lr_factor=2.0, **FALLING)
    rates, decays = _uniform([0.1 * rate for rate in RATES], 0.0)
    for name in rates:
        if name.startswith(("bottleneck/", "classifier/")):
            rates[name] = [2 * rate for rate in RATES] if name.endswith("bias") else RATES
    assert {tuple(rate) for rate in rates.values()} == {tuple(f * np.asarray(RATES)) for f in (0.1, 1, 2)}
    _assert_equal(_run(options), _torch(_sgd(), rates, decays))


@pytest.mark.parametrize(("name", "rtol"), [("sgd", 1e-6), ("adam", 2e-5), ("adamw", 2e-5)])
def test_float32_stays_float32_and_close(name, rtol):
    options = OptimizerOptions(name, 0.1, weight_decay=0.05, **FALLING)
    got = _run(options, dtype=np.float32)
    assert {value.dtype for value in got[-1].values()} == {np.dtype(np.float32)}
    update = _sgd() if name == "sgd" else _adam(name == "adamw")
    _assert_equal(got, _torch(update, *_uniform(RATES, 0.05)), rtol=rtol)


def test_float32_parameters_stay_float32_under_x64(x64):
    got = _run(OptimizerOptions("adam", 0.1, weight_decay=0.05, **FALLING), dtype=np.float32)
    assert {value.dtype for value in got[-1].values()} == {np.dtype(np.float32)}


def test_groups_have_their_rate_and_decay_and_the_first_match_wins(x64):
    groups = (
        Group("^bottleneck/bias$", frozen=True),
        Group("norm/", lr_factor=0.1, weight_decay=0.0),
        Group("bias", lr_factor=2.0),
        Group("^classifier", weight_decay=0.2),
    )
    rates, decays = _uniform(RATES, 0.05)
    decays["bottleneck/bias"] = None
    for name in ("backbone/norm/scale", "backbone/norm/bias"):
        rates[name], decays[name] = [0.1 * r for r in RATES], 0.0
    rates["backbone/conv/bias"] = [2 * r for r in RATES]
    decays["classifier/kernel"] = 0.2
    for name, update in (("sgd", _sgd()), ("adam", _adam(False)), ("adamw", _adam(True))):
        options = OptimizerOptions(name, 0.1, weight_decay=0.05, **FALLING)
        _assert_equal(_run(options, groups), _torch(update, rates, decays))


HTT = {"name": "sgd", "lr": 0.1, "weight_decay": 1e-4, "bias_lr_factor": 2.0, "schedule": "htt", "warmup_epochs": 1}


def test_htts_groups_follow_htts_rates(x64):
    t = np.array([1, 1, 2, 3, 3])
    rates, decays = _uniform(None, 1e-4)
    for name in rates:
        rate = 0.2 if name.endswith("bias") else 0.1
        rates[name] = np.where(t < 3, 2e-4 + 0.5 * (rate - 2e-4) * (1 + np.cos(np.pi * t / 3)), 2e-4)
    decays["bottleneck/bias"] = None
    got = _run(OptimizerOptions.of(HTT), groups=(Group("bottleneck/bias", frozen=True),))
    _assert_equal(got, _torch(_sgd(), rates, decays))


def test_adaptation_trains_the_backbone_alone(x64):
    start, end = _flat(_tree(0)), _run(OptimizerOptions.of(HTT), groups=(Group("^(?!backbone/)", frozen=True),))[-1]
    moved = {name for name in start if not np.array_equal(start[name], end[name])}
    assert moved == {name for name in start if name.startswith("backbone/")}


def test_options_of_a_config_section():
    section = {"name": "adam", "lr": 0.3, "milestones": [2, 4], "schedule": "multi_step", "epochs": 80}
    assert OptimizerOptions.of(section) == OptimizerOptions("adam", 0.3, milestones=(2, 4), schedule="multi_step")
    with pytest.raises(
        UserError, match=r"unknown key config.optim.weight_decai; did you mean config.optim.weight_decay"
    ):
        OptimizerOptions.of({"weight_decai": 0.3})


def test_timetable_of_the_options():
    options = OptimizerOptions(schedule="cosine", warmup_epochs=3, warmup_start=0.0, period=0, minimum=0.5, decay=0.2)
    assert options.timetable == Schedule("cosine", 3, warmup_start=0.0, gamma=0.2, minimum=0.5, period=None)
    assert OptimizerOptions(schedule="cosine", period=9).timetable == Schedule("cosine", period=9)


def test_frozen_parameters_have_no_state_and_ignore_bad_gradients():
    params = _tree(0, np.float32)
    groups = (Group("^bottleneck", frozen=True), Group("kernel", frozen=True))
    optimizer = optimizers.build(OptimizerOptions("adam"), params, ENDS, groups)
    state = optimizer.init(params)
    trained = {name for name in _flat(params) if not name.startswith("bottleneck") and "kernel" not in name}
    assert len([leaf for leaf in jax.tree.leaves(state) if leaf.ndim]) == 2 * len(trained)
    grads = jax.tree.map(lambda w: np.full_like(w, np.nan), params)
    grads["backbone"] = jax.tree.map(np.ones_like, params["backbone"])
    updates = _flat(optimizer.update(grads, state, params)[0])
    assert all(np.all(updates[name] == 0) for name in updates if name not in trained)
    assert all(np.all(np.isfinite(updates[name]) & (updates[name] != 0)) for name in trained)


def test_clipping_counts_trained_parameters_only(x64):
    groups = (Group("^bottleneck", frozen=True),)
    options = OptimizerOptions("sgd", 0.1, momentum=0.0, clip_norm=0.5, **FALLING)
    start, end = _flat(_tree(0)), _run(options, groups, steps=1, gradient_scale=7.0)[0]
    grads = {name: g for name, g in _flat(_tree(100)).items() if not name.startswith("bottleneck")}
    norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
    for name, g in grads.items():
        np.testing.assert_allclose(end[name], start[name] - 0.1 * 0.5 * g / norm, rtol=1e-10)


def test_small_gradients_are_not_clipped(x64):
    clipped = _run(OptimizerOptions("sgd", 0.1, clip_norm=1e3))[-1]
    plain = _run(OptimizerOptions("sgd", 0.1))[-1]
    assert all(np.array_equal(clipped[name], plain[name]) for name in plain)


def test_unmatched_pattern_is_named():
    with pytest.raises(UserError, match=r"'bottlneck' matches no parameter.* backbone, bottleneck, classifier"):
        optimizers.build(OptimizerOptions(), _tree(0), ENDS, (Group("bottlneck"),))


def test_a_pattern_shadowed_by_an_earlier_group_is_fine():
    assigned = optimizers.assign((Group("."), Group("bias", lr_factor=2.0)), _tree(0))
    assert {group.pattern for group in jax.tree.leaves(assigned)} == {"."}


def test_bad_pattern_and_options_are_one_sentence():
    with pytest.raises(UserError, match="not a regular expression"):
        Group("(")
    with pytest.raises(UserError, match="unknown optimiser 'sdg'; available: sgd"):
        OptimizerOptions("sdg")
    with pytest.raises(UserError, match=r"optim.lr is -1.0; it must not be negative"):
        OptimizerOptions(lr=-1.0)
    with pytest.raises(UserError, match=r"optim.beta2 is 1.0; it must lie between 0 and 1"):
        OptimizerOptions(beta2=1.0)
    with pytest.raises(UserError, match="unknown schedule 'cosin'"):
        optimizers.build(OptimizerOptions(schedule="cosin"), _tree(0), ENDS)


def test_describe_counts_every_value_once():
    shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, _tree(0, np.float32)))
    lines = optimizers.describe(
        (Group("^bottleneck/bias$", frozen=True), Group("bias", lr_factor=2.0, weight_decay=0.0)), shapes
    )
    table = [line.split("  ") for line in lines]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in table]
    assert cells[0] == ["parameters", "tensors", "values", "lr factor", "weight decay"]
    assert cells[1:] == [
        ["^bottleneck/bias$", "1", "4", "frozen", "-"],
        ["bias", "2", "4", "2", "0"],
        ["all others", "4", "24", "1", "default"],
    ]


def test_describe_without_rest():
    assert len(optimizers.describe((Group("."),), _tree(0))) == 2


def test_rate_is_what_the_steps_use():
    options = OptimizerOptions("sgd", 0.1, **FALLING)
    got = [float(optimizers.rate(options, ENDS, 2.0)(step)) for step in range(5)]
    np.testing.assert_allclose(got, [2 * r for r in RATES], rtol=1e-6)
