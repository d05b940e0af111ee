"""DDAG: the dynamic weight across epochs, devices and checkpoints; ablations; frozen biases; the authors' files."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ddag_sysu
from mmreid_jax.convert import known
from mmreid_jax.convert import layout as layouts
from mmreid_jax.errors import UserError
from mmreid_jax.methods import base
from mmreid_jax.testing import tiny
from mmreid_jax.training import checkpoints, optimizers
from mmreid_jax.training import state as states
from mmreid_jax.training import step as steps
from tests.methods.variants import DDAG_ABLATIONS, ddag_variables, ddag_variables_of

ENDS = np.array([2, 5, 6])


def start(dtype=np.float32):
    """A tiny method with the dynamic weight, its state before the first step and its optimiser."""
    config, method = tiny.method("ddag", loss__graph_weight=-1.0, optim__warmup_epochs=0, optim__lr=0.01)
    variables = jax.tree.map(lambda x: jnp.asarray(x, dtype if x.dtype == np.float32 else x.dtype), ddag_variables())
    optimizer = method.optimizer(variables["params"], ENDS)
    return config, method, optimizer, states.create(variables, optimizer, method.start_memory(ENDS))


@functools.cache
def compiled():
    """What `start` makes in float32, and the compiled step, for all tests of one device."""
    config, method, optimizer, state = start()
    return config, jax.jit(steps.train_step(method.loss, optimizer, seed=0)), state


def run(config, step, state, numbers, place=lambda batch: batch, dtype=np.float32):
    """The metrics of some steps, each on a batch of its own, and the state after them."""
    found = []
    for number in numbers:
        state, metrics = step(state, place(tiny.batch(config, seed=number, dtype=dtype)))
        found.append(steps.fetch(metrics))
    return found, state


def oracle(metrics, ends):
    """The weight of every step from the losses of the epoch before, in numpy."""
    losses = [m["ce"] + m["triplet"] + m["part"] for m in metrics]
    begins = [0, *ends]
    weights = []
    for number in range(len(losses)):
        epoch = int(np.searchsorted(ends, number, side="right"))
        last = losses[begins[epoch - 1] : begins[epoch]] if epoch else None
        weights.append(0.0 if last is None else 1.0 / (1.0 + np.mean(last)))
    return weights


@pytest.mark.slow(short=True)
def test_the_weight_follows_the_losses_of_the_epoch_before():
    config, step, state = compiled()
    metrics, state = run(config, step, state, range(ENDS[-1]))
    wanted = oracle(metrics, ENDS)
    assert wanted[1] == 0.0
    assert len(set(wanted)) == len(ENDS)
    np.testing.assert_allclose([m["graph_weight"] for m in metrics], wanted, rtol=1e-5)
    for m in metrics:
        total = m["ce"] + m["triplet"] + m["part"] + m["graph_weight"] * m["graph"]
        np.testing.assert_allclose(m["loss"], total, rtol=1e-5)
    assert int(state.memory["count"]) == 1


@pytest.mark.slow(short=True)
def test_a_restored_run_has_the_weight_of_an_uninterrupted_one(tmp_path):
    """Interrupted in the middle of an epoch: what has been summed survives, and every bit of the state."""
    config, step, begin = compiled()
    _, half = run(config, step, begin, range(4))
    _, whole = run(config, step, half, range(4, 6))
    with checkpoints.Checkpoints(tmp_path / "checkpoints") as store:
        store.save(4, half, {})
        store.wait()
        restored, _ = store.restore(steps.abstract(half))
    assert float(restored.memory["weight"]) > 0
    assert int(restored.memory["count"]) == 2
    _, again = run(config, step, restored, range(4, 6))
    for (path, wanted), got in zip(jax.tree.leaves_with_path(whole), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(got, wanted, err_msg=jax.tree_util.keystr(path))


@pytest.mark.slow
def test_eight_devices_have_the_weight_of_one(x64):
    results = []
    for devices in (jax.devices()[:1], jax.devices()[:8]):
        config, method, optimizer, state = start(np.float64)
        parallel = steps.Parallel(devices)
        step = parallel.jit_train(steps.train_step(method.loss, optimizer, seed=0))
        metrics, state = run(config, step, parallel.place_state(state), range(4), parallel.place_batch, np.float64)
        results.append((metrics, steps.fetch(state)))
    assert results[0][0][-1]["graph_weight"] > 0
    for wanted, got in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-10 * max(1.0, np.abs(wanted).max(initial=0.0)))


@pytest.mark.slow
def test_in_the_first_epoch_the_graph_only_decays():
    config, step, state = compiled()
    _, after = run(config, step, state, [0])
    # Momentum and Nesterov's form in the first step: -lr * decay * (1 + 0.9).
    rate = 0.01 * 5e-4 * 1.9
    for before, now in zip(*map(jax.tree.leaves, (state.params["graph"], after.params["graph"])), strict=True):
        np.testing.assert_allclose(now, before * (1 - rate), rtol=1e-6)


@pytest.mark.slow_cases("{'model__graph': False}")
@pytest.mark.parametrize("change", DDAG_ABLATIONS[:-1], ids=str)
def test_ablations_train_and_embed(change):
    config, method = tiny.method("ddag", **change)
    variables, batch = ddag_variables_of(config), tiny.batch(config)
    wpa, graph = config.model.wpa, config.model.graph
    assert ("parts" in variables["params"], "graph" in variables["params"]) == (wpa, graph)
    loss = lambda p, s: method.loss({"params": p, "batch_stats": s}, batch, jax.random.key(1), 0, {})  # noqa: E731
    (total, (terms, stats, _)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        variables["params"], variables["batch_stats"]
    )
    assert np.isfinite(total)
    assert ("part" in terms, "graph" in terms) == (wpa, graph)
    assert jax.tree.structure(stats) == jax.tree.structure(variables["batch_stats"])
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(gradient))
    features = jax.jit(method.embed)(variables, batch)
    names = ("fc", "fc_att") if wpa else ("fc",)
    assert set(features) == {f"{name}_{modality}" for name in names for modality in ("rgb", "nir")}
    assert method.comparisons()[0].feature == f"{config.eval.feature}_nir"
    for value in features.values():
        np.testing.assert_allclose(np.linalg.norm(value, axis=1), 1.0, rtol=1e-5)
    assert set(method.start_memory(ENDS)) == set()


def test_one_modality_alone_gives_what_both_together_give():
    config, method = tiny.method("ddag")
    variables, batch = ddag_variables_of(config), tiny.batch(config)
    both = jax.jit(method.embed)(variables, batch)
    for name in method.facts.modalities:
        alone = jax.jit(method.embed)(variables, {**batch, "images": {name: batch["images"][name]}})
        assert set(alone) == {f"fc_{name}", f"fc_att_{name}"}
        for feature, value in alone.items():
            np.testing.assert_allclose(value, both[feature], rtol=1e-4, atol=1e-5)


def test_the_graph_s_dropout_takes_the_key_of_the_step():
    config, method = tiny.method("ddag")
    variables, batch = ddag_variables_of(config), tiny.batch(config)
    loss = jax.jit(lambda v, key: method.loss(v, batch, key, 0, {})[1][0])
    one, same, other = (loss(variables, jax.random.key(seed)) for seed in (1, 1, 2))
    assert one["graph"] == same["graph"]
    assert one["graph"] != other["graph"]
    assert one["ce"] == other["ce"]


def test_biases_of_the_necks_stay_and_the_trunk_trains_at_a_tenth():
    _, method = tiny.method("ddag", optim__warmup_epochs=0)
    params = jax.eval_shape(method.init, jax.random.key(0))["params"]
    ones = jax.tree.map(lambda x: jnp.ones(x.shape), params)
    optimizer = method.optimizer(ones, np.array([10, 20]))
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, ones), optimizer.init(ones), ones)
    for path, update in zip(jax.tree.leaves(optimizers.paths(params)), jax.tree.leaves(updates), strict=True):
        frozen = path in ("bottleneck/bias", "parts/bottleneck/bias")
        rate = 0.0 if frozen else 0.01 if path.startswith("backbone/") else 0.1
        np.testing.assert_allclose(update, -rate * (1 + 5e-4) * 1.9, rtol=1e-4, err_msg=path)


@pytest.mark.parametrize(
    ("change", "shares"),
    [
        ({}, {0: 0.1, 9: 1.0, 10: 1.0, 29: 1.0, 30: 0.1, 50: 0.01, 80: 0.01}),
        ({"milestones": (20, 50)}, {0: 0.1, 9: 1.0, 19: 1.0, 20: 0.1, 49: 0.1, 50: 0.01}),
        ({"schedule": "cosine"}, {0: 0.1, 9: 1.0, 10: 0.5 * (1 + np.cos(np.pi / 8)), 40: 0.5, 80: 0.0}),
    ],
    ids=["steps_30_50", "steps_20_50", "cosine"],
)
def test_schedules_of_the_released_copies_and_of_the_logs(change, shares):
    options = ddag_sysu.get_config().optim
    options.update(change)
    rate = optimizers.rate(options, np.arange(1, options.epochs + 1))
    for epoch, share in shares.items():
        assert float(rate(epoch)) == pytest.approx(0.1 * share, abs=1e-7)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"eval__feature": "pool"}, "fc, fc_att"),
        ({"model__wpa": False}, "fc_att"),
        ({"model__backbone": "vit_micro"}, "resnet50"),
        ({"train__micro_batches": 2}, "remat"),
    ],
)
def test_options_that_do_not_exist_are_named(change, said):
    with pytest.raises(UserError, match=said):
        tiny.method("ddag", **change)


def test_imagenet_weights_go_where_a_stream_has_the_part(tmp_path):
    from safetensors.numpy import save_file

    trunk = {c: {**tree["backbone"]["visible"], **tree["backbone"]["shared"]} for c, tree in ddag_variables().items()}
    file = tmp_path / "resnet.safetensors"
    save_file(layouts.export_state(known.named("resnet"), jax.tree.map(lambda x: x + 1, trunk)), file)
    _, method = tiny.method("ddag", init__backbone=str(file))
    loaded = method.start(method.init(jax.random.key(1)))
    for collection, streams in loaded.items():
        for stream, parts in streams["backbone"].items():
            assert ("conv1" in parts or "bn1" in parts) == (stream != "shared")
            wanted = {part: trunk[collection][part] for part in parts}
            for got, before in zip(*map(jax.tree.leaves, (parts, wanted)), strict=True):
                np.testing.assert_array_equal(got, before + 1)


def test_three_modalities_are_too_many():
    with pytest.raises(UserError, match="two modalities"):
        base.build(tiny.config("ddag"), base.DataFacts(8, 3, 1, ("rgb", "nir", "tir")))
