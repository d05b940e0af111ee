"""Residual networks: their size."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.models import resnet, vit

# Exact parameter counts for 256x128 images (vit_micro, vit_mini: 64x32); a new size needs a line here.
PARAMETERS = {
    "vit_base": 85_746_432,
    "vit_small": 47_933_184,
    "deit_small": 21_639_552,
    "deit_tiny": 5_511_360,
    "vit_mini": 321_120,
    "vit_micro": 32_736,
    "clip_vit_b16": 85_747_200,
    "clip_vit_b16_projected": 86_140_416,
    "clip_vit_micro": 33_280,
}


def abstract(model, *arguments):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), *arguments))


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", vit.SIZES)
def test_parameter_count(name):
    size = (64, 32) if vit.SIZES[name].patch == 8 else (256, 128)
    network = vit.VisionTransformer(vit.SIZES[name], size)
    assert count(abstract(network, jnp.zeros((1, *size, 3)))) == PARAMETERS[name]


def test_resnet50_has_torchvisions_parameters():
    assert count(abstract(resnet.ResNet(classes=1000), jnp.zeros((1, 64, 32, 3)), False)["params"]) == 25_557_032
