"""MMGL's heads and training steps against numbers of a plain implementation of what is known of it.

Every case of the suite ``mmgl`` with heads or with a trunk is run, in float32 and in float64. Weights enter through the
conversion code that a user's checkpoint takes.
"""

from __future__ import annotations

import described
import jax
import jax.numpy as jnp
import numpy as np
import observers
import precisions
import pytest

from configs import mmgl_sysu
from mmreid_jax.convert import layout as layouts
from mmreid_jax.convert import mmgl as mmgl_layout
from mmreid_jax.losses import permutation
from mmreid_jax.methods import base
from mmreid_jax.models.two_stream import MODALITIES
from mmreid_jax.testing import goldens
from mmreid_jax.training import state as states
from mmreid_jax.training import step as steps

FILES = {path: goldens.load(path) for path in goldens.cases("mmgl")}
HEADS = [(path, i) for path, g in FILES.items() for i, case in enumerate(g.json.get("cases", [])) if "head" in case]
STEPS = [path for path, golden in FILES.items() if "state_dict" in golden.json]
NAMES = ("rgb", "nir")
# float64: part of the largest value of the quantity.
HEADS64, STEPS64 = 1e-10, 1e-6
# float32: the first layers of a deep network in training mode are ill conditioned; the ReLUs whose sign is turned over
# are others on every machine. The Euclidean norm of a gradient's error may be this part of its own, that of a parameter
# this part of what it moved. float64 is the judge.
GRADIENT32 = 0.05


def method_of(case, image_hw, **overrides):
    """The method of a case, built from the experiment's config."""
    config = mmgl_sysu.get_config()
    config.data.image_size = tuple(image_hw)
    config.model.stripes = case["S"]
    config.model.proj_head = case.get("head", "conv_bn_relu")
    config.model.proj_shared = case.get("shared_head", False)
    config.model.perm_head_hidden = case.get("hidden", 0)
    config.model.proj_dim = case.get("D", 256)
    # The same numbers in less memory.
    config.model.remat = True
    with config.unlocked():
        config.update_from_flattened_dict(overrides)
    return base.build(config, base.DataFacts(1, 4, 1, NAMES))


def orders_of(json, key, shape, stripes):
    """Orders from the ranks under a key, the same for both modalities."""
    ranks = goldens.recipe().integers(json["seed"], key, 0, permutation.count(stripes), shape)
    return np.stack([np.asarray(permutation.unrank(jnp.asarray(own), stripes)) for own in ranks.reshape(-1, shape[-1])])


def first(value):
    """The stored slice of an array."""
    return np.asarray(value).reshape(-1)[:512].copy()


def as_torch(maps):
    """Maps NHWC in PyTorch's layout."""
    return np.moveaxis(np.asarray(maps), -1, 1)


def cast(tree, dtype):
    """A tree with its floating leaves in a type; copies, because a step takes its memory."""
    return jax.tree.map(lambda x: jnp.array(x, dtype if np.asarray(x).dtype.kind == "f" else None), tree)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("path", "index"), [pytest.param(p, i, id=f"{p.stem}-{i}") for p, i in HEADS])
def test_heads(path, index, dtype, x64):
    golden, dtype = FILES[path], jnp.dtype(dtype)
    case, seed, recipe = golden.json["cases"][index], golden.json["seed"], goldens.recipe()
    # The heads never see images, whose size only has to fit the stripes.
    method = method_of(case, (case["S"] * 8, 16))
    form = bool(case["hidden"]), case["head"], case["shared_head"]
    names = mmgl_layout.heads(*form)
    variables, report = layouts.import_state(names, recipe.state_dict(seed, case["state_dict"]))
    assert not report.dropped
    variables = {"batch_stats": {}, **cast(variables, dtype)}
    shape = (2 * case["B"], case["C"], case["H"], case["W"])
    maps = jnp.asarray(np.moveaxis(np.maximum(recipe.array(seed, f"features_{index}", shape), 0), 1, -1), dtype)
    orders = dict.fromkeys(
        MODALITIES, jnp.asarray(orders_of(golden.json, f"ranks_{index}", (case["B"],), case["S"])[0])
    )

    def objective(params, maps):
        out, stats = method.heads({**variables, "params": params}, maps, True)
        total, terms = method.objective(out, orders, jax.random.key(0), jnp.asarray(0))
        return total, (out, stats, terms)

    grad = jax.jit(jax.value_and_grad(objective, argnums=(0, 1), has_aux=True))
    (total, (out, stats, terms)), (gradient, of_maps) = grad(variables["params"], maps)
    truth = permutation.matrices(jnp.concatenate([orders[name] for name in MODALITIES]), dtype)
    exported = layouts.export_state(names, {"params": gradient, "batch_stats": stats})
    later, _ = jax.jit(method.heads)({**variables, "batch_stats": stats}, maps)
    conv = exported["local_conv_list.0.0.weight"]
    outputs = {
        "logits": out["logits"],
        "patches": out["patches"],
        "loss_perm": terms["perm"],
        "loss_perm_mean": permutation.permutation_loss(permutation.sinkhorn(out["logits"]), truth, "mean"),
        "loss_pcc": terms["pcc"],
        "loss_total": total,
        "grad_features": as_torch(of_maps),
        "grad_features_norm": np.linalg.norm(of_maps),
        "grad_fc1_weight": exported["fc1.weight"],
        "grad_conv0_weight": conv,
        "grad_conv0_weight_norm": np.linalg.norm(conv),
        "running_mean_0": exported.get("local_conv_list.0.1.running_mean"),
        "running_var_0": exported.get("local_conv_list.0.1.running_var"),
        "eval_logits": later["logits"],
        "eval_patches": later["patches"],
    }
    stored = {key.removesuffix(f"_{index}"): value for key, value in golden.arrays.items() if key.endswith(f"_{index}")}
    assert stored
    for name, expected in stored.items():
        actual = np.asarray(outputs[name], np.float64)
        actual = first(actual) if actual.size > 512 else actual
        scale = np.abs(expected).max()
        allowed = HEADS64 * scale if dtype == jnp.float64 else max(10 * case["float32_gap"][name], 1e-5 * scale)
        error = np.abs(actual.reshape(expected.shape) - expected).max()
        assert error <= allowed, f"{name}: error {error:.3g}, allowed {allowed:.3g}"


# A whole network: float64 is the judge, float32 runs where there is time.
@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(STEPS, lambda *_: True)))
def test_training(path, dtype, x64):
    golden, dtype, recipe = FILES[path], jnp.dtype(dtype), goldens.recipe()
    case, arrays = golden.json, golden.arrays
    pairs, stripes, count = case["B"], case["S"], len(arrays["total"])
    image_hw = described.shape(case["inputs"], "infrared", B=pairs)[2:]
    options = dict(schedule="constant", warmup_epochs=0, lr=described.number(case["optimizer"], r"lr ([\d.]+\d)"))
    method = method_of(case, image_hw, **{f"optim.{name}": value for name, value in options.items()})
    layout = method.convert_layouts()["mmgl"]
    entries = recipe.state_dict(case["seed"], case["state_dict"])
    variables, report = layouts.import_state(layout, entries)
    assert set(report.used) == set(entries)
    variables = cast(variables, dtype)
    optimizer = observers.recording(method.optimizer(variables["params"], np.array([1000])))

    def observed(variables, batch, key, step, memory):
        seen = {}

        def objective(out, *rest):
            seen.update({name: out[name] for name in ("logits", "patches")})
            return type(method).objective(method, out, *rest)

        method.objective = objective
        method.orders = lambda key, pairs: dict.fromkeys(MODALITIES, batch["orders"])
        total, (terms, stats, memory) = method.loss(variables, batch, key, step, memory)
        return total, ({**terms, **seen}, stats, memory)

    def export(params, batch_stats):
        return layouts.export_state(layout, jax.tree.map(np.asarray, {"params": params, "batch_stats": batch_stats}))

    images = {
        name: jnp.asarray(np.moveaxis(recipe.array(case["seed"], stream, (pairs, 3, *image_hw)), 1, -1), dtype)
        for stream, name in zip(MODALITIES, NAMES, strict=True)
    }
    orders = orders_of(case, "ranks", (count, pairs), stripes)
    state = states.create(variables, optimizer)
    del variables
    step = jax.jit(steps.train_step(observed, optimizer, seed=0), donate_argnums=0)
    outputs, losses = {}, []
    for number, own in enumerate(orders):
        state, metrics = step(state, {"images": images, "orders": jnp.asarray(own)})
        losses.append([np.asarray(metrics[name], np.float64) for name in ("loss", "perm", "pcc")])
        if number == 0:
            outputs.update(logits=metrics["logits"], patches=metrics["patches"])
            for name, value in export(state.opt_state[1], state.batch_stats).items():
                outputs[f"grad/{name}"] = value
                outputs[f"gradnorm/{name}"] = np.linalg.norm(value.astype(np.float64))
        for name, value in export(state.params, state.batch_stats).items():
            outputs[f"{'running' if observers.is_buffer(name) else 'param'}{number + 1}/{name}"] = value
    outputs.update(dict(zip(("total", "perm", "pcc"), np.transpose(losses), strict=True)))
    for name, expected in arrays.items():
        actual, scale = np.asarray(outputs[name], np.float64), case["max_abs"][name]
        # Some are stored whole, others as their first values.
        actual = actual.reshape(-1)[: expected.size].reshape(expected.shape)
        error = actual - expected
        allowed = STEPS64 * scale
        if dtype == jnp.float32:
            allowed = max(10 * case["float32_gap"][name], 1e-5 * scale)
            moved = expected - first(entries[name.split("/", 1)[1]]) if name.startswith("param") else expected
            if name.startswith(("grad", "param")) and np.linalg.norm(error) <= GRADIENT32 * np.linalg.norm(moved):
                continue
        assert np.abs(error).max() <= allowed, f"{name}: error {np.abs(error).max():.3g}, allowed {allowed:.3g}"
    precisions.forget()
