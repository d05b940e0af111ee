"""How much work a training step or a forward pass is, in floating-point operations, for the share of peak."""

from __future__ import annotations

import torch_tvi_lfm
from step_configs import TEXT_TOWERS_OF, Setting

from mmreid_jax.models import vit
from mmreid_jax.models.clip import TEXT_TOWERS
from mmreid_jax.models.resnet import RESNETS


def flops_of_image(setting: Setting) -> float:
    """Floating-point operations of one forward pass of one image; a training step has three times as many.

    Of IEEE the convolutions on whole maps are counted, backbone and interaction.
    """
    backbone, image_size = setting.backbone, setting.image_size
    if backbone in vit.SIZES:
        size = vit.SIZES[backbone]
        patches = (image_size[0] // size.patch) * (image_size[1] // size.patch)
        tokens = 1 + patches
        weights = (4 + 2 * size.mlp_ratio) * size.width**2
        blocks = size.depth * (2 * tokens * weights + 4 * tokens**2 * size.width)
        return blocks + 2 * patches * 3 * size.patch**2 * size.width
    stages, first_width = RESNETS[backbone]["stages"], RESNETS[backbone]["width"]
    pixels = image_size[0] * image_size[1] / 4
    total = 2 * pixels * 49 * 3 * first_width
    pixels, channels = pixels / 4, first_width
    for number, depth in enumerate(stages):
        width = first_width * 2**number
        for index in range(depth):
            stride = 2 if index == 0 and number in (1, 2) else 1
            total += 2 * pixels * channels * width
            pixels /= stride**2
            total += 2 * pixels * (9 * width * width + 4 * width * width)
            total += 2 * pixels * channels * 4 * width if index == 0 else 0
            channels = 4 * width
    return total + (4 * pixels * channels**2 if setting.method == "ieee" else 0)


def work_of(kind: str, setting: Setting) -> float:
    """Floating-point operations of a step or a forward pass; the backward pass has twice those of the forward one."""
    passes = 3 if kind == "train" else 1
    images = setting.batch * len(setting.views if kind == "train" else setting.modalities)
    work = images * flops_of_image(setting)
    if setting.method != "tvi_lfm":
        return work * passes
    size, tokens = TEXT_TOWERS[TEXT_TOWERS_OF[setting.backbone]], torch_tvi_lfm.LENGTH
    layer = 2 * tokens * 12 * size["width"] ** 2 + 4 * tokens**2 * size["width"]
    # The visual network is not trained, and has no backward pass.
    return work + passes * len(setting.modalities) * setting.batch * size["depth"] * layer
