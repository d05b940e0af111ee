"""What a student copies, against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.models.resnet import RESNETS, ResNet
from mmreid_jax.trunks import distillation

RANDOM = np.random.default_rng(0)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.slow(short=True)
def test_a_teacher_answers_with_its_maps_and_their_mean():
    teacher = ResNet(**RESNETS["resnet_micro"], last_stride=1)
    images = jnp.asarray(RANDOM.normal(size=(2, 32, 16, 3)), jnp.float32)
    variables = teacher.init(jax.random.key(0), images, False)
    told = distillation.answers(teacher, variables, images)
    assert {name: value.shape for name, value in told.items()} == {
        "feature": (2, 256),
        "layer2": (2, 4, 2, 64),
        "layer4": (2, 2, 1, 256),
    }
    np.testing.assert_allclose(told["layer4"], teacher.apply(variables, images, False), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(told["feature"], told["layer4"].mean((1, 2)), rtol=1e-5, atol=1e-6)
    of = distillation.moments(told)
    for name, values in distillation.standardised(told, of).items():
        flat = np.asarray(values).reshape(-1, values.shape[-1])
        np.testing.assert_allclose(flat.mean(0), 0, atol=1e-3, err_msg=name)
        assert flat.std(0).max() < 1.001, name


def test_patches_are_meant_over_equal_rectangles():
    patches = RANDOM.normal(size=(2, 4, 6, 3))
    means = np.asarray(distillation.mean_patches(jnp.array(patches), (2, 3)))
    for row, column in np.ndindex(2, 3):
        rectangle = patches[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_allclose(means[:, row, column], rectangle.mean((1, 2)), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="4x6 patches cannot be divided into 3x3"):
        distillation.mean_patches(jnp.array(patches), (3, 3))


def test_copies_are_linear_in_class_token_and_patches():
    tokens = jnp.asarray(RANDOM.normal(size=(2, 1 + 8, 5)))
    told = {"feature": jnp.zeros((2, 3)), "layer2": jnp.zeros((2, 4, 2, 7)), "layer4": jnp.zeros((2, 2, 1, 3))}
    copies = distillation.Copies((4, 2))
    params = copies.init(jax.random.key(0), tokens, told)["params"]
    copied = copies.apply({"params": params}, tokens, told)
    assert jax.tree.map(jnp.shape, copied) == jax.tree.map(jnp.shape, told)
    np.testing.assert_allclose(copied["feature"], tokens[:, 0] @ params["feature"]["kernel"], rtol=1e-5, atol=1e-6)
    last = np.asarray(tokens)[:, [1, 2, 3, 4]].mean(1) @ params["layer4"]["kernel"]
    np.testing.assert_allclose(copied["layer4"][:, 0, 0], last, rtol=1e-5, atol=1e-6)


def test_relations_are_those_of_a_loop():
    features, taught = RANDOM.normal(size=(5, 3)), RANDOM.normal(size=(5, 7))
    total = 0.0
    for i in range(5):
        others = [j for j in range(5) if j != i]
        logits = [unit(x)[others] @ unit(x)[i] / distillation.TEMPERATURE for x in (features, taught)]
        found, wanted = (np.exp(x) / np.exp(x).sum() for x in logits)
        total += (wanted * (np.log(wanted) - np.log(found))).sum()
    np.testing.assert_allclose(distillation.relations(jnp.array(features), jnp.array(taught)), total / 5, rtol=1e-4)
    np.testing.assert_allclose(distillation.relations(jnp.array(taught), jnp.array(taught)), 0, atol=1e-5)


def test_who_copies_well_loses_nothing():
    told = {
        "feature": jnp.asarray(RANDOM.normal(size=(4, 3))),
        "layer2": jnp.asarray(RANDOM.normal(size=(4, 2, 2, 5))),
        "layer4": jnp.asarray(RANDOM.normal(size=(4, 1, 1, 3))),
    }
    good = distillation.loss({name: 3 * value for name, value in told.items()}, told, told["feature"])
    for name, value in good.items():
        np.testing.assert_allclose(value, 0, atol=1e-5, err_msg=name)
    bad = distillation.loss({name: -value for name, value in told.items()}, told, told["feature"])
    assert float(bad["feature"]) == pytest.approx(2)
    assert float(bad["map"]) == pytest.approx(2)
