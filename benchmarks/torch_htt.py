"""HTT's networks, losses and training step in plain PyTorch: the other side of `benchmarks/step_time.py`.

Written as a PyTorch user would write it: `nn.Module`s, `F.scaled_dot_product_attention`, `F.layer_norm`, vectorised
losses, `torch.optim.SGD`. It shares no code with `mmreid_jax`; `Htt.load` takes the weights of our parameter tree, so
that both sides can be compared number for number.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention with a joint projection [q | k | v]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width))


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        return self.fc2(F.gelu(self.fc1(x)))


def drop_path(branch: Tensor, rate: float, training: bool) -> Tensor:
    """Drops the branch of whole samples [B, ...] with the given probability (stochastic depth)."""
    if rate == 0 or not training:
        return branch
    kept = torch.rand(branch.shape[0], *[1] * (branch.ndim - 1), device=branch.device) >= rate
    return branch * kept / (1 - rate)


class Block(nn.Module):
    """Pre-norm transformer block with stochastic depth."""

    def __init__(self, width: int, heads: int, drop_rate: float) -> None:
        super().__init__()
        self.drop_rate = drop_rate
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        x = x + drop_path(self.attn(self.norm1(x)), self.drop_rate, self.training)
        return x + drop_path(self.mlp(self.norm2(x)), self.drop_rate, self.training)


class PatchEmbed(nn.Module):
    """Non-overlapping patches as tokens."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, N, D]."""
        return self.proj(images).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """ViT with a class token; images [B, 3, H, W] -> features [B, D]."""

    def __init__(
        self, image_size: Sequence[int], width: int, depth: int, heads: int, patch: int = 16, drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        tokens = (image_size[0] // patch) * (image_size[1] // patch)
        self.width = width
        self.patch_embed = PatchEmbed(patch, width)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + tokens, width))
        rates = np.linspace(0, drop_rate, depth)
        self.blocks = nn.ModuleList([Block(width, heads, float(rate)) for rate in rates])
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, D]."""
        x = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]


class Bottleneck(nn.Module):
    """ResNet bottleneck with the stride in the 3x3 convolution."""

    def __init__(self, channels: int, width: int, stride: int, downsample: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample: nn.Module | None = None
        if downsample:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, 4 * width, H / stride, W / stride]."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """ResNet with HTT's stem (no ReLU, 2x2 max-pooling) and last stride 1; images [B, 3, H, W] -> features [B, D]."""

    def __init__(self, stages: Sequence[int] = (3, 4, 6, 3), width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        for number, (depth, stride) in enumerate(zip(stages, (1, 2, 2, 1), strict=True)):
            blocks = []
            for index in range(depth):
                first = index == 0
                blocks.append(Bottleneck(channels, width * 2**number, stride if first else 1, first))
                channels = 4 * width * 2**number
            self.add_module(f"layer{number + 1}", nn.Sequential(*blocks))
        self.width = channels

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, D]."""
        x = F.max_pool2d(self.bn1(self.conv1(images)), 2, 2)
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
        return x.mean((2, 3))


class Htt(nn.Module):
    """Shared backbone, BNNeck on the concatenated features, classifier."""

    def __init__(self, backbone: nn.Module, modalities: int, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.bottleneck = nn.BatchNorm1d(modalities * backbone.width)
        self.bottleneck.bias.requires_grad_(False)
        self.classifier = nn.Linear(modalities * backbone.width, classes, bias=False)

    def features(self, images: Sequence[Tensor]) -> list[Tensor]:
        """One [B, 3, H, W] per modality -> one [B, D] per modality."""
        if isinstance(self.backbone, ResNet):
            return [self.backbone(image) for image in images]
        # Without batch statistics one call on the joint batch is the same, and faster.
        return list(self.backbone(torch.cat(list(images))).chunk(len(images)))

    def forward(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Images by modality -> logits [B, C], concatenated features [B, M D], features by modality."""
        features = self.features(images)
        joint = torch.cat(features, dim=1)
        return self.classifier(self.bottleneck(joint)), joint, features

    @torch.no_grad()
    def load(self, params: Mapping[str, Any], batch_stats: Mapping[str, Any]) -> None:
        """Copies the parameter tree of `mmreid_jax.methods.htt` (leaves: numpy arrays)."""
        values = {}
        for path, leaf in [*_leaves(params), *_leaves(batch_stats)]:
            if path.startswith("backbone/blocks/"):
                name = path.removeprefix("backbone/blocks/")
                values.update({f"backbone/blocks/{i}/{name}": layer for i, layer in enumerate(leaf)})
            else:
                values[path.replace("downsample_", "downsample/")] = leaf
        state = self.state_dict()
        names = {_torch_name(path): value for path, value in values.items()}
        if missing := set(state) ^ set(names):
            raise ValueError(f"the two networks differ in {sorted(missing)}")
        for name, value in names.items():
            state[name].copy_(torch.from_numpy(_torch_layout(name, value).copy()))


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, np.ndarray]]:
    found = []
    for key, value in tree.items():
        found += _leaves(value, f"{prefix}{key}/") if isinstance(value, Mapping) else [(prefix + key, np.array(value))]
    return found


def _torch_name(path: str) -> str:
    last = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    last["count"] = "num_batches_tracked"
    *rest, leaf = path.split("/")
    name = ".".join([*rest, last.get(leaf, leaf)])
    for number in range(1, 5):
        name = name.replace(f"layer{number}_", f"layer{number}.")
    return name.replace("patch_embed.", "patch_embed.proj.")


def _torch_layout(name: str, value: np.ndarray) -> np.ndarray:
    if not name.endswith("weight"):
        return value
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T if value.ndim == 2 else value


def batch_hard_triplet(features: Tensor, labels: Tensor) -> Tensor:
    """Soft-margin batch-hard triplet loss."""
    squared = features.square().sum(1)
    distance = (squared[:, None] + squared[None, :] - 2 * features @ features.T).clamp(min=1e-12).sqrt()
    same = labels[:, None] == labels[None, :]
    positive = distance.masked_fill(~same, -torch.inf).amax(1)
    negative = distance.masked_fill(same, torch.inf).amin(1)
    return F.softplus(positive - negative).mean()


def three_modal_margin(unit: Tensor, identities: int, margin: float) -> Tensor:
    """3M loss of unit features [M, B, D], the batch being `identities` blocks of equal length."""
    modalities, batch, width = unit.shape
    centers = unit.reshape(modalities, identities, batch // identities, width).mean(2)
    pairs = list(itertools.combinations(range(modalities), 2))
    squared = torch.stack([(centers[a] - centers[b]).square().sum(1) for a, b in pairs])
    return (margin - squared).abs().amax(0).sum()


def cross_identity_margin(unit: Tensor, identities: int, margin: float) -> Tensor:
    """CIM loss of unit features [M, B, D]; the hardest pairs are found without, and compared with gradients."""
    modalities, batch, width = unit.shape
    images = batch // identities
    groups = unit.reshape(modalities, identities, images, width).permute(1, 2, 0, 3).reshape(identities, -1, width)
    rows = groups.reshape(-1, width)
    with torch.no_grad():
        deviation = (margin - torch.cdist(rows, rows, p=1) / width).abs()
        size = images * modalities
        blocks = deviation.reshape(identities, size, identities, size).transpose(1, 2)
        u, v = torch.triu_indices(identities, identities, 1, device=unit.device)
        hardest = blocks[u, v].flatten(1).argmax(1)
    first, second = groups[u, hardest // size], groups[v, hardest % size]
    return (margin - (first - second).abs().mean(1)).abs().mean()


def losses(output: tuple[Tensor, Tensor, list[Tensor]], labels: Tensor, identities: int) -> dict[str, Tensor]:
    """Every term of HTT's loss by name, and their weighted sum ``loss``."""
    logits, joint, features = output
    unit = F.normalize(torch.stack(features).float(), dim=-1)
    terms = {
        "ce": F.cross_entropy(logits.float(), labels),
        "triplet": batch_hard_triplet(joint.float(), labels),
        "mmm": three_modal_margin(unit, identities, 1.0),
        "cim": cross_identity_margin(unit, identities, 0.5),
    }
    terms["loss"] = terms["ce"] + terms["triplet"] + 0.5 * terms["mmm"] + 0.5 * terms["cim"]
    return terms


def optimizer(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """SGD with HTT's momentum and decay; biases learn at twice the rate."""
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    biases = [value for name, value in trained if "bias" in name]
    others = [value for name, value in trained if "bias" not in name]
    groups = [{"params": others}, {"params": biases, "lr": 2 * rate}]
    return torch.optim.SGD(groups, lr=rate, momentum=0.9, weight_decay=1e-4)
