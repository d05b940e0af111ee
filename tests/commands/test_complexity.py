"""Sizes and costs by hand, and the table of a whole model."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import htt_rgbnt100, htt_rgbnt201
from mmreid_jax import errors
from mmreid_jax.commands import complexity
from mmreid_jax.methods import base
from mmreid_jax.testing import tiny


def shape(*sides):
    return jax.ShapeDtypeStruct(sides, jnp.float32)


def convolve(images, kernel, stride=1, groups=1):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        images, kernel, (stride, stride), "VALID", dimension_numbers=layout, feature_group_count=groups
    )


def test_a_linear_layer():
    found = complexity.cost(lambda x, w, b: x @ w + b, shape(5, 7), shape(7, 11), shape(11))
    assert found.multiply_adds == 5 * 7 * 11
    assert found.flops == 2 * 5 * 7 * 11 + 5 * 11, "and the bias"


@pytest.mark.parametrize(("stride", "groups", "side"), [(1, 1, 8), (2, 1, 4), (1, 2, 8)])
def test_a_convolution(stride, groups, side):
    found = complexity.cost(
        lambda x, w: convolve(x, w, stride, groups), shape(2, 10, 10, 4), shape(3, 3, 4 // groups, 6)
    )
    assert found.multiply_adds == 2 * side * side * 6 * (3 * 3 * 4 // groups)
    assert found.flops == 2 * found.multiply_adds


def test_every_turn_of_a_scan_counts_also_inside_other_programs():
    def once(x, w):
        return jnp.tanh(x @ w)

    def looped(x, w):
        body = jax.checkpoint(lambda carry, _: (once(carry, w), None))
        return jax.lax.scan(body, x, None, length=6)[0]

    one = complexity.cost(once, shape(3, 4), shape(4, 4))
    six = complexity.cost(jax.jit(looped), shape(3, 4), shape(4, 4))
    assert one.multiply_adds == 3 * 4 * 4
    assert six.multiply_adds == 6 * one.multiply_adds
    assert six.flops == 6 * one.flops


def test_the_gradient_of_a_linear_layer_costs_twice_the_layer():
    def loss(w, x):
        return (x @ w).sum()

    found = complexity.cost(jax.value_and_grad(loss, argnums=(0, 1)), shape(7, 11), shape(5, 7))
    assert found.multiply_adds == 3 * 5 * 7 * 11


def test_of_branches_the_dearest_counts():
    def either(flag, x, w):
        return jax.lax.cond(flag, lambda: x @ w @ w, lambda: x)

    found = complexity.cost(either, jax.ShapeDtypeStruct((), jnp.bool_), shape(3, 4), shape(4, 4))
    assert found.multiply_adds == 2 * 3 * 4 * 4


def vit_base(tokens, classes):
    """Parameters of HTT with ViT-B/16 and multiply-adds of one image, counted by hand."""
    width, depth, patches = 768, 12, tokens - 1
    block = 4 * width**2 + 4 * width + 8 * width**2 + 5 * width + 2 * 2 * width
    backbone = width + tokens * width + 16 * 16 * 3 * width + width + depth * block + 2 * width
    products = patches * 16 * 16 * 3 * width + depth * (tokens * 12 * width**2 + 2 * tokens**2 * width)
    return {"backbone": backbone, "bottleneck": 2 * 3 * width, "classifier": 3 * width * classes}, products


def test_htt_with_vit_base():
    config = htt_rgbnt201.get_config()
    facts, said = complexity.facts_of(config.lock())
    assert (facts.identities, facts.modalities) == (171, ("rgb", "nir", "tir"))
    assert said == "171 training identities (published)"
    method = base.build(config, facts)
    variables = jax.eval_shape(method.init, jax.random.key(0))
    wanted, products = vit_base(1 + 16 * 8, 171)
    assert complexity.parameters(variables["params"]) == wanted
    found = complexity.cost(method.embed, variables, complexity.example_batch(config, facts, 1) | {"images": images()})
    # The class token's row is the only one that the last block must compute, so a little less than all is allowed.
    whole = 3 * products + 3 * 768 * 171
    assert 0.9 * whole < found.multiply_adds <= whole
    assert found.flops == pytest.approx(2 * found.multiply_adds, rel=0.02)


def images():
    return dict.fromkeys(("rgb", "nir", "tir"), shape(1, 256, 128, 3))


@pytest.mark.slow
def test_the_whole_table_of_a_tiny_model():
    config, method = tiny.method("htt")
    found = complexity.measure(config.lock(), method.facts)
    params = jax.tree.leaves(jax.eval_shape(method.init, jax.random.key(0))["params"])
    assert sum(found.parameters.values()) == sum(x.size for x in params)
    assert found.batch == 16
    ratio = found.training.multiply_adds / (found.batch * found.evaluation.multiply_adds)
    assert 2.5 < ratio < 4, "a backward pass costs about two forward passes"
    state = 2 * 4 * sum(x.size for x in params)
    assert found.memory["state"] == pytest.approx(state, rel=0.02), "parameters and momentum"
    assert found.memory["together"] == sum(v for k, v in found.memory.items() if k != "together")
    text = complexity.describe(found, "cpu")
    assert f"{sum(found.parameters.values()):,}" in text
    assert len({len(line) for line in text.splitlines() if line.startswith("  ") and "MiB" not in line}) == 1


@pytest.mark.slow(short=True)
def test_micro_batches_do_not_change_the_count_of_products():
    counts = {}
    for parts in (1, 4):
        config, method = tiny.method("htt", train__micro_batches=parts)
        counts[parts] = complexity.measure(config.lock(), method.facts, memory=False)
    assert counts[1].evaluation == counts[4].evaluation
    again = counts[4].training.multiply_adds / counts[1].training.multiply_adds
    assert 1 < again < 1.5, "micro-batches compute the forward pass twice"
    assert counts[4].memory is None


def test_the_command(capsys):
    overrides = [
        "--no_memory",
        "--config.model.backbone=vit_micro",
        "--config.data.image_size=(32,16)",
        "--identities=7",
    ]
    complexity.main(["--config", "configs/htt_rgbnt100.py", *overrides])
    said = capsys.readouterr().out
    assert "rgb + nir + tir at 32 x 16, 7 training identities (given)" in said
    assert "multiply-adds" in said
    with pytest.raises(errors.UserError, match=r"optim\.lr"):
        complexity.main(["--config", "configs/htt_rgbnt100.py", "--config.optim.lrr=1"])
    with pytest.raises(errors.UserError, match="no such file"):
        complexity.main(["--config", "configs/nothing.py"])


def test_two_modalities_and_drawn_identities():
    config = htt_rgbnt100.get_config()
    config.data.dataset = "rgbn300"
    assert complexity.facts_of(config)[0].modalities == ("rgb", "nir")
    config.data.drawn, config.data.drawn_identities = True, 9
    config.data.modalities = ("nir",)
    facts, said = complexity.facts_of(config)
    assert facts.modalities == ("nir",)
    assert (facts.identities, said) == (9, "9 training identities (drawn)")
    assert np.isscalar(facts.cameras)


def test_a_batch_has_tokens_where_the_config_asks_for_text():
    config = tiny.config("agw")
    facts = tiny.facts("agw")
    assert "tokens" not in complexity.example_batch(config, facts, 4, training=True)
    config.data.text = True
    tokens = complexity.example_batch(config, facts, 4)["tokens"]
    assert {name: (found.shape, found.dtype) for name, found in tokens.items()} == {
        name: ((4, 77), jnp.int32) for name in facts.modalities
    }
