"""What a state_dict looks like, in words."""

import pytest

from mmreid_jax.convert.identify import looks_like


def resnet(stages, convolutions, prefix=""):
    return {
        f"{prefix}layer{stage}.{block}.conv{number}.weight": (8, 8, 1, 1)
        for stage, blocks in enumerate(stages, 1)
        for block in range(blocks)
        for number in range(1, convolutions + 1)
    }


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({}, "nothing: it holds no arrays"),
        ({"a.b": (3,)}, "nothing that is known here (its first key is a.b)"),
        (
            {"cls_token": (1, 1, 768), "blocks.0.attn.qkv.weight": (1,), "blocks.1.attn.qkv.weight": (1,)},
            "a timm ViT of 2 blocks, width 768",
        ),
        (
            {"base.cls_token": (1, 1, 384), "base.blocks.0.norm1.weight": (1,)},
            "a trained HTT network on a ViT of 1 block, width 384",
        ),
        (resnet((3, 4, 6, 3), 3), "a torchvision ResNet (ResNet-50)"),
        (resnet((2, 2, 2, 2), 2), "a torchvision ResNet (ResNet-18)"),
        (resnet((1, 2), 3), "a torchvision ResNet of 1-2 blocks"),
        (resnet((3, 4, 6, 3), 3, "base."), "a trained HTT network on a ResNet (ResNet-50)"),
        (resnet((3, 4, 6, 3), 3, "visible_net.visible."), "a Hetero-Center network (ResNet-50)"),
        ({"visual.transformer.resblocks.0.ln_1.weight": (4,)}, "a CLIP network with a ViT of 1 block"),
    ],
)
def test_families(shapes, words):
    assert looks_like(shapes) == words
