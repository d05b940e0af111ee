"""The ResNet-50 backbone and the poolings against numbers of PyTorch; every case file of the suite ``resnet``."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import precisions
import pytest

from mmreid_jax.convert import layout as layouts
from mmreid_jax.convert import resnet as resnet_layout
from mmreid_jax.models import resnet
from mmreid_jax.testing import goldens

CASES = goldens.cases("resnet")
# The README of the suite: arrays are rounded to float32, so that float64 agrees to this part of the largest value.
FLOAT64, POOLING_FLOAT32 = 1e-6, 1e-5
# The judge of gradients is float64, as the README of the suite allows. In float32 a few ReLUs of a whole network turn
# their sign, other ones on every machine, and the file's tolerances are ten times the noise of a single run; here a
# float32 gradient must be the same as a whole: the Euclidean norm of its error is at most this part of its own.
GRADIENT_FLOAT32 = 0.05
POOLS = {"avg": resnet.average_pool, "gem": resnet.gem_pool, "gem_agw": resnet.gem_pool_agw}


def kind_of(path):
    """What a case holds."""
    return "poolings" if "shapes" in goldens.load(path).json else "network"


def is_slow(path, dtype):
    """Gradients take long; by default networks are evaluated, in both precisions, and poolings run in float64."""
    if "shapes" in goldens.load(path).json:
        return dtype == "float32"
    return any(key.startswith("grad") for key in goldens.load(path).json.get("tolerance_float32_relative_to_max", ()))


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(CASES, is_slow, kind_of)))
def test_case(path, dtype, x64):
    dtype = jnp.dtype(dtype)
    golden = goldens.load(path)
    if "state_dict" in golden.json:
        network(golden, dtype)
    elif "shapes" in golden.json:
        pooling(golden, dtype)
    else:
        raise AssertionError(f"case of unknown kind: {sorted(golden.json)}")
    precisions.forget()


def cut(value, limit=512):
    """The stored slice of an array: every s-th value, s the smallest stride that is coprime with its size."""
    flat = np.asarray(value).reshape(-1)
    stride = max(1, flat.size // limit)
    while math.gcd(stride, flat.size) != 1:
        stride += 1
    return flat[::stride][:limit]


def images(case, recipe):
    batch, height, width = case["batch"], case["height"], case["width"]
    noise = recipe.array(case["seed"], f"{case['case']}/noise", (batch, 3, height, width))
    if "low" not in case["inputs"]:
        return np.moveaxis(noise, 1, -1)
    low = recipe.array(case["seed"], f"{case['case']}/low", (batch, 3, 8, 4))
    up = np.repeat(np.repeat(low, height // 8, axis=2), width // 4, axis=3)
    return np.moveaxis(np.float32(up + 0.25 * noise), 1, -1)


def to_nchw(value):
    return np.moveaxis(np.asarray(value), -1, 1)


def network(golden, dtype):
    case, recipe = golden.json, goldens.recipe()
    entries = dict(recipe.state_dict(case["seed"], case["state_dict"]))
    override = (case["weight_overrides"] or {}).get("multiply")
    for name in entries:
        if override and name.endswith(override["suffix"]):
            entries[name] = entries[name] * np.float32(override["factor"])
    train = case["mode"] == "train"
    model = resnet.ResNet(last_stride=case["last_stride"], classes=entries["fc.weight"].shape[0])
    pixels = jnp.asarray(images(case, recipe), dtype)
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), pixels, train))
    cast = lambda x: x if x.dtype == jnp.int32 else jax.ShapeDtypeStruct(x.shape, dtype)  # noqa: E731
    layout = resnet_layout.layout(fc=True)
    variables, _ = layouts.import_state(layout, entries, jax.tree.map(cast, like))

    @jax.jit
    def forward(params, x):
        network = {"params": params, "batch_stats": variables["batch_stats"]}
        if not train:
            return model.apply(network, x, False, return_stages=True), variables["batch_stats"]
        stages, new = model.apply(network, x, True, return_stages=True, mutable=["batch_stats"])
        return stages, new["batch_stats"]

    stages, batch_stats = forward(variables["params"], pixels)
    outputs = {"logits": np.asarray(stages.pop("logits"))[:, ::5]}
    for name, value in stages.items():
        value = to_nchw(value)
        height, width = value.shape[2:]
        outputs[f"shape/{name}"] = np.array(value.shape)
        outputs[f"mean/{name}"] = value.mean((2, 3))
        outputs[f"rms/{name}"] = np.sqrt(np.square(value).mean((2, 3)))[:, ::4]
        rows, columns = max(1, height // 8), max(1, width // 4)
        outputs[f"slice/{name}"] = value[:, :: value.shape[1] // 16, ::rows, ::columns]
    last = stages["layer4"]
    for name, pool in POOLS.items():
        outputs[f"pool/{name}"] = pool(last)
    exported = layouts.export_state(layout, jax.tree.map(np.asarray, {**variables, "batch_stats": batch_stats}))
    outputs.update({f"bn/{name}": cut(value) for name, value in exported.items()})
    for name in {key.split("/")[1] for key in golden.arrays if key.startswith("loss/")}:
        weight = jnp.asarray(recipe.array(case["seed"], f"{case['case']}/w_{name}", (case["batch"], 2048)), dtype)
        outputs.update(gradients(name, weight, forward, layout, variables, pixels, last))
    for name in ("pool/avg", "pool/gem", "logits"):
        outputs[f"f32/{name}"] = outputs[name]
    compare(golden, dtype, outputs, case["tolerance_float32_relative_to_max"])


def gradients(name, weight, forward, layout, variables, pixels, last):
    """Loss sum(weight * pool) and its gradients by parameters, input and last feature map, in PyTorch's layout."""

    def loss_of_maps(maps):
        return (weight * POOLS[name](maps)).sum()

    def loss(params, x):
        return loss_of_maps(forward(params, x)[0]["layer4"])

    value, (by_params, by_input) = jax.jit(jax.value_and_grad(loss, (0, 1)))(variables["params"], pixels)
    tree = {"params": jax.tree.map(np.asarray, by_params), "batch_stats": variables["batch_stats"]}
    whole = layouts.export_state(layout, tree)
    big = {"input": to_nchw(by_input), "layer4_out": to_nchw(jax.grad(loss_of_maps)(last))}
    out = {f"loss/{name}": value}
    for parameter, gradient in {**whole, **big}.items():
        out[f"grad_{name}/{parameter}"] = cut(gradient, 1024 if parameter in big else 512)
        out[f"gradl2_{name}/{parameter}"] = np.linalg.norm(gradient.astype(np.float64))
    return out


def pooling(golden, dtype):
    case, recipe = golden.json, goldens.recipe()
    outputs = {}
    generalised = {"gem": resnet.gem_pool, "gem_agw": resnet.gem_pool_agw}
    differentiated = {
        name: jax.jit(jax.grad(lambda m, p, w, pool=pool: (w * pool(m, p)).sum(), (0, 1)))
        for name, pool in generalised.items()
    }
    for index, shape in enumerate(case["shapes"]):
        x = jnp.asarray(np.moveaxis(recipe.array(case["seed"], f"pool/{index}", shape), 1, -1), dtype)
        weight = jnp.asarray(recipe.array(case["seed"], f"pool/w{index}", shape[:2]), dtype)
        for power in case["p"]:
            for name, pool in generalised.items():
                data = jnp.abs(x) if name == "gem_agw" else x
                key = f"{name}_p{power:g}/{index}"
                by_x, by_p = differentiated[name](data, jnp.asarray(power, dtype), weight)
                outputs[key] = pool(data, power)
                # The golden of the AGW form differentiates |x| as well.
                outputs[f"{key}/grad_x"] = to_nchw(by_x)
                outputs[f"{key}/grad_p"] = by_p
        counts = {int(key.split("/")[0].rsplit("_", 1)[1]) for key in golden.arrays if key.startswith("adaptive")}
        for parts in counts:
            scale = weight[:, None, :] * jnp.arange(1, parts + 1, dtype=dtype)[None, :, None]
            for name, reduce in (("avg", jnp.mean), ("max", jnp.max)):
                key = f"adaptive_{name}_{parts}/{index}"
                outputs[key] = np.moveaxis(np.asarray(resnet.part_pool(x, parts, reduce)), 1, -1)
                by_x = jax.grad(lambda m, r=reduce, p=parts, s=scale: (s * resnet.part_pool(m, p, r)).sum())(x)
                outputs[f"{key}/grad_x"] = to_nchw(by_x)
    compare(golden, dtype, outputs, {})


def compare(golden, dtype, outputs, tolerances):
    """Compares every stored number; one that nothing computes is a failure."""
    for key, expected in golden.arrays.items():
        if key.startswith("f32/") and dtype == jnp.float64:
            continue
        assert key in outputs, f"nothing computes {key}"
        actual = np.asarray(outputs[key])
        if expected.dtype.kind in "iu":
            np.testing.assert_array_equal(actual.reshape(expected.shape), expected, err_msg=key)
            continue
        assert actual.shape == expected.shape, key
        difference = actual.astype(np.float64) - expected
        if dtype == jnp.float32 and key.startswith("grad"):
            share = np.linalg.norm(difference) / max(np.linalg.norm(expected), 1e-30)
            assert share <= GRADIENT_FLOAT32, f"{key}: {share:.3g} of its norm is wrong, allowed {GRADIENT_FLOAT32:.3g}"
            continue
        scale = max(float(np.abs(expected).max()), 1e-30)
        relative = FLOAT64 if dtype == jnp.float64 else tolerances.get(key, POOLING_FLOAT32)
        error = float(np.abs(difference).max())
        assert error <= relative * scale, f"{key}: error {error:.3g}, allowed {relative * scale:.3g}"
