"""DEEN's feature aggregation and embedding expansion against numbers of the authors' code."""

from __future__ import annotations

import agw_runs
import deen_kinds
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.convert import deen as deen_layout
from mmreid_jax.convert import layout as layouts
from mmreid_jax.models import deen
from mmreid_jax.testing import goldens

PRECISION = pytest.mark.parametrize("dtype", ["float32", "float64"])
LEVELS = [
    pytest.param(golden, level, id=f"{golden.name}-{level}")
    for golden in deen_kinds.of_kind("aggregation")
    for level in golden.json["levels"]
]
WIDTHS = [
    pytest.param(golden, width, id=f"{golden.name}-{width}")
    for golden in deen_kinds.of_kind("expansion")
    for width in golden.json["channels"]
]


def test_every_case_is_of_a_known_kind():
    assert not deen_kinds.of_kind("other")


def nhwc(array):
    return np.moveaxis(array, 1, -1)


def described(key, maps):
    """What is stored of maps [B, h, w, C]: the first values in PyTorch's order, the length, and means."""
    whole = np.moveaxis(np.asarray(maps), -1, 1)
    return {
        key: agw_runs.first(whole),
        f"{key}_norm": np.linalg.norm(whole.astype(np.float64)),
        f"{key}_mean": whole.mean((2, 3)),
    }


def gradients(prefix, found):
    """Likewise of gradients by PyTorch's names."""
    out = {f"{prefix}/grad/{name}": agw_runs.first(value) for name, value in found.items()}
    return out | {f"{prefix}/gradnorm/{name}": np.linalg.norm(value.astype(float)) for name, value in found.items()}


def load(module, entries, layout, dtype, *inputs):
    """The variables of a module with the entries of a file, every one of which must be used."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))
    cast = lambda t: jnp.dtype(dtype) if jnp.issubdtype(t, jnp.floating) else t  # noqa: E731
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, cast(leaf.dtype)), shapes)
    variables, report = layouts.import_state(layout, entries, like)
    assert set(report.used) == set(entries)
    return variables


def compare(golden, prefix, outputs, dtype):
    """Compares every stored number below a prefix; one that nothing computes is a failure."""
    keys = {key: name for key, name in agw_runs.keys_of(golden.arrays, dtype).items() if key.startswith(f"{prefix}/")}
    assert keys
    for key, name in keys.items():
        assert name in outputs, f"nothing computes {key}"
        agw_runs.check(key, outputs[name], golden.arrays[key], golden.json["tolerances"].get(name), dtype)


@PRECISION
@pytest.mark.parametrize(("golden", "level"), LEVELS)
def test_aggregation(golden, level, dtype, x64):
    case, recipe, prefix = golden.json["levels"][level], goldens.recipe(), f"l{level}"
    batch, seed = golden.json["batch"], golden.json["seed"]
    sizes = {"high": ("high", "high_hw"), "low": ("low", "low_hw"), "cot": ("high", "high_hw")}
    high, low, cotangent = (
        jnp.asarray(nhwc(recipe.array(seed, f"{prefix}/{name}", (batch, case[width], *case[size]))), dtype)
        for name, (width, size) in sizes.items()
    )
    entries = dict(recipe.state_dict(case["seed"], case["state_dict"]))
    for suffix, factor in case["weight_scale"]:
        scaled = {name: value * np.float32(factor) for name, value in entries.items() if name.endswith(suffix)}
        entries |= scaled
    module, layout = deen.Aggregation(), deen_layout.aggregation()
    variables = load(module, entries, layout, dtype, high, low, False)

    def objective(params, high, low):
        whole = {**variables, "params": params}
        out, new = module.apply(whole, high, low, True, mutable=["batch_stats"])
        return (out * cotangent).sum(), (out, new["batch_stats"])

    by = jax.jit(jax.grad(objective, (0, 1, 2), has_aux=True))
    (of_params, of_high, of_low), (trained, new) = by(variables["params"], high, low)
    exported = layouts.export_state(layout, jax.tree.map(np.asarray, {"params": of_params, "batch_stats": new}))
    of_maps = {name: np.moveaxis(np.asarray(x), -1, 1) for name, x in (("x_high", of_high), ("x_low", of_low))}
    outputs = described(f"{prefix}/train_mfa", trained) | gradients(prefix, {**exported, **of_maps})
    outputs |= {f"{prefix}/stats/{name}": value for name, value in exported.items()}
    parts = {"cnl": deen.ChannelAttention(), "pnl": deen.PositionAttention()}
    for (name, part), ours in zip(parts.items(), ("channels", "positions"), strict=True):
        own = {collection: tree[ours] for collection, tree in variables.items()}
        outputs |= described(f"{prefix}/eval_{name}", part.apply(own, high, low, False))
        outputs |= described(f"{prefix}/{name}_before_W", attended(name, own["params"], case["stride_flag"], high, low))
    outputs |= described(f"{prefix}/eval_mfa", module.apply(variables, high, low, False))
    compare(golden, prefix, outputs, dtype)


def attended(name, params, strided, high, low):
    """What the authors' last convolution of a block gets, at positions that its stride leaves out as well."""

    def of(maps, layer, step=1):
        maps = maps[:, ::step, ::step]
        return maps.reshape(len(maps), -1, maps.shape[-1]) @ params[layer]["kernel"] + params[layer]["bias"]

    if name == "cnl":
        y = deen.attend_channels(of(high, "theta"), of(low, "phi", 1 + strided), of(low, "g"))
        return y.reshape(*low.shape[:3], -1)
    y = deen.attend_positions(of(high, "theta"), of(low, "phi"), of(low, "g"))
    return y.reshape(*high.shape[:3], -1)


@PRECISION
@pytest.mark.parametrize(("golden", "width"), WIDTHS)
def test_expansion(golden, width, dtype, x64):
    case, recipe, prefix = golden.json["channels"][width], goldens.recipe(), f"c{width}"
    batch, seed, channels = golden.json["batch"], golden.json["seed"], int(width)
    maps, cotangent = (
        jnp.asarray(nhwc(recipe.array(seed, f"{prefix}/{name}", (count * batch, channels, *case["hw"]))), dtype)
        for name, count in (("x", 1), ("cot", deen.COPIES))
    )
    entries = dict(recipe.state_dict(case["seed"], case["state_dict"]))
    module, layout = deen.Expansion(), deen_layout.expansion("", "")
    variables = load(module, entries, layout, dtype, maps, False)

    def objective(params, maps):
        out = module.apply({"params": params}, maps, True)
        return (out * cotangent).sum(), out

    (of_params, of_maps), out = jax.jit(jax.grad(objective, (0, 1), has_aux=True))(variables["params"], maps)
    exported = layouts.export_state(layout, jax.tree.map(np.asarray, {"params": of_params}))
    outputs = described(f"{prefix}/out", out)
    outputs |= gradients(prefix, {**exported, "x": np.moveaxis(np.asarray(of_maps), -1, 1)})
    for number, branch in enumerate(jnp.split(out, deen.COPIES)[1:], 1):
        outputs |= described(f"{prefix}/branch{number}", branch)
    compare(golden, prefix, outputs, dtype)


@pytest.mark.parametrize(("golden", "width"), WIDTHS)
def test_dropout(golden, width, x64):
    """On every element of all three copies, and what is kept is larger."""
    facts, (height, wide) = golden.json["dropout"][width], golden.json["channels"][width]["hw"]
    module, maps = deen.Expansion(facts["p"]), jnp.ones((64, height, wide, 128), jnp.float64)
    variables = module.init(jax.random.key(0), maps[:1], False)
    plain = module.apply(variables, maps, True)
    dropped = module.apply(variables, maps, True, rngs={"dropout": jax.random.key(1)})
    np.testing.assert_array_equal(module.apply(variables, maps, False, rngs={"dropout": jax.random.key(1)}), plain)
    kept = np.asarray(dropped != 0)
    np.testing.assert_allclose(np.asarray(dropped)[kept], facts["kept_factor"] * np.asarray(plain)[kept], rtol=1e-12)
    shares = [1 - copy.mean() for copy in np.split(kept, deen.COPIES)]
    for share in [*shares, *facts["share_dropped_per_copy"]]:
        assert abs(share - facts["p"]) < 1.5e-3
