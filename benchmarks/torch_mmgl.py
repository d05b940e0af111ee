"""MMGL's pre-training in plain PyTorch: the other side of `step_time.py --method mmgl`.

Written as a PyTorch user would write it: images shuffled one after the other, a module for each stripe's projection,
Sinkhorn iterations in a loop, cycle contrast (PCC) as cross-entropies. Nothing is shared with `mmreid_jax`; the trunk
is `torch_vi`'s, and parameters have the names that the authors' fine-tuning code reads or throws away, so that exported
weights of ours load.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torch_vi
from torch import Tensor, nn

STRIPES, PATCH_WIDTH = 6, 256
SINKHORN_ITERATIONS = 20
PCC_WEIGHT, TEMPERATURE = 0.5, 0.07


class Mmgl(torch_vi.TwoStream):
    """Two-stream ResNet with a linear layer for the order of the stripes and a projection for each of them."""

    def __init__(self, stages: Sequence[int], width: int, orders: Tensor | None = None) -> None:
        """`orders`: int [B, S] of the pairs in every step; None: drawn anew in each."""
        super().__init__(stages, width, classes=1)
        del self.bottleneck, self.classifier
        channels = self.base_resnet["base"].width
        self.orders = orders
        self.fc1 = nn.Linear(channels, STRIPES**2)
        self.local_conv_list = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, PATCH_WIDTH, 1), nn.BatchNorm2d(PATCH_WIDTH), nn.ReLU())
            for _ in range(STRIPES)
        )

    def forward(self, images: Sequence[Tensor]) -> Any:
        """[visible, infrared], [B, 3, H, W] each -> training: orders [B, S], logits [2 B, S, S], patches."""
        if not self.training:
            return F.normalize(self.maps(images).mean((2, 3)))
        orders = self.orders
        if orders is None:
            orders = torch.stack([torch.randperm(STRIPES) for _ in images[0]])
        maps = self.maps([shuffled(own, orders) for own in images])
        logits = self.fc1(maps.mean((2, 3))).reshape(-1, STRIPES, STRIPES)
        bands = F.adaptive_avg_pool2d(maps, (STRIPES, 1))
        patches = [project(bands[:, :, s : s + 1]).flatten(1) for s, project in enumerate(self.local_conv_list)]
        return orders.to(logits.device), logits, torch.stack(patches, 1)

    def losses(self, output: Any, labels: Tensor, identities: int) -> dict[str, Tensor]:
        """Both terms, the contrast of each modality's queries, and the ``loss``; no label is read."""
        del labels, identities
        orders, logits, patches = output
        visible, infrared = F.normalize(torch_vi.widened(patches), dim=2).chunk(2)
        terms = {
            "perm": recovery(torch_vi.widened(logits), torch.cat([orders, orders])),
            "pcc_visible_query": contrast(visible.flatten(0, 1), infrared.flatten(0, 1)),
            "pcc_infrared_query": contrast(infrared.flatten(0, 1), visible.flatten(0, 1)),
        }
        terms["pcc"] = (terms["pcc_visible_query"] + terms["pcc_infrared_query"]) / 2
        return {**terms, "loss": terms["perm"] + PCC_WEIGHT * terms["pcc"]}


def shuffled(images: Tensor, orders: Tensor) -> Tensor:
    """Images [B, 3, H, W] with their stripes in the orders [B, S]."""
    moved = [
        torch.cat([image.chunk(STRIPES, 1)[s] for s in order], 1)
        for image, order in zip(images, orders.tolist(), strict=True)
    ]
    return torch.stack(moved).contiguous(memory_format=torch.channels_last)


def recovery(logits: Tensor, orders: Tensor) -> Tensor:
    """Squared difference of Sinkhorn's matrix and the order's, summed, mean of images: [N, S, S], [N, S] -> scalar."""
    for _ in range(SINKHORN_ITERATIONS):
        logits = logits - logits.logsumexp(2, keepdim=True)
        logits = logits - logits.logsumexp(1, keepdim=True)
    truth = F.one_hot(orders, STRIPES).to(logits.dtype)
    return (logits.exp() - truth).square().sum((1, 2)).mean()


def neighbours(queries: Tensor, candidates: Tensor) -> Tensor:
    """Soft nearest neighbours at unit length: [N, D], [N, D] -> [N, D]."""
    weights = (queries @ candidates.T / TEMPERATURE).softmax(1)
    return F.normalize(weights @ candidates)


def contrast(own: Tensor, other: Tensor) -> Tensor:
    """What queries [N, D] find in the other modality and in their own must agree: scalar."""
    logits = neighbours(own, other) @ neighbours(own, own).T / TEMPERATURE
    target = torch.arange(len(own), device=own.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def optimizer(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """SGD with Nesterov, decay on everything, one rate: nothing is trained before."""
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
