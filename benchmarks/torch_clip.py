"""DeMo and MDReID on CLIP's image tower in plain PyTorch: the other side of `step_time.py --method demo_moe`, `mdreid`.

Written as a PyTorch user would write it, with `nn.MultiheadAttention` and vectorised losses; modules have the names of
the authors' files, so that an exported file of ours is loaded as it is. No code is shared with `mmreid_jax`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CE_WEIGHT, SMOOTHING = 0.25, 0.1
SHARED_WEIGHT, ORTHOGONALITY_WEIGHT, DISENTANGLING_WEIGHT = 3.0, 1.5, 5.25
HEADS, QUERY_HEADS, QUERY_DROPOUT = 4, 8, 0.1
WEIGHT_DECAY, TRUNK_FACTOR, BIAS_FACTOR = 1e-4, 1 / 70, 2.0
LETTERS = "rnt"


class QuickGelu(nn.Module):
    """CLIP's approximation of the GELU."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", QuickGelu())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Tower(nn.Module):
    """CLIP's image tower, all of whose tokens come out."""

    def __init__(self, size: Any, image_size: Sequence[int], tokens: int) -> None:
        super().__init__()
        patches = (image_size[0] // size.patch) * (image_size[1] // size.patch)
        self.tokens = tokens
        self.class_embedding = nn.Parameter(torch.zeros(size.width))
        if tokens > 1:
            self.add_image_token = self.class_embedding
        self.positional_embedding = nn.Parameter(torch.zeros(tokens + patches, size.width))
        self.proj = nn.Parameter(torch.zeros(size.width, size.out))
        self.conv1 = nn.Conv2d(3, size.width, size.patch, size.patch, bias=False)
        self.ln_pre, self.ln_post = nn.LayerNorm(size.width), nn.LayerNorm(size.width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.Sequential(*(Block(size.width, size.heads) for _ in range(size.depth)))

    def forward(self, images: Tensor, camera: Tensor, every: bool) -> Tensor:
        """[B, 3, H, W], [B, D] -> [B, N, out], or of the class tokens alone."""
        x = self.conv1(images).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(x), self.tokens, -1)
        first = torch.cat([first[:, :1] + camera[:, None], first[:, 1:]], dim=1)
        x = self.ln_pre(torch.cat([first, x], dim=1) + self.positional_embedding)
        x = self.transformer.resblocks(x)
        return self.ln_post(x if every else x[:, : self.tokens]) @ self.proj


class Backbone(nn.Module):
    """The tower with a table of cameras, of which there is one here."""

    def __init__(self, size: Any, image_size: Sequence[int], tokens: int) -> None:
        super().__init__()
        self.cv_embed = nn.Parameter(torch.zeros(1, 1, size.width))
        self.base = Tower(size, image_size, tokens)

    def forward(self, images: Sequence[Tensor], every: bool) -> list[Tensor]:
        """Images of every modality, in one call -> tokens of each."""
        joint = torch.cat(list(images))
        return list(self.base(joint, self.cv_embed[0].expand(len(joint), -1), every).chunk(len(images)))


class Headed(nn.Module):
    """Batch norms without bias and classifiers by the end of their names."""

    def add_head(self, suffix: str, width: int, classes: int) -> None:
        """A batch norm and a classifier."""
        self.add_module(f"bottleneck{suffix}", nn.BatchNorm1d(width))
        getattr(self, f"bottleneck{suffix}").bias.requires_grad_(False)
        self.add_module(f"classifier{suffix}", nn.Linear(width, classes, bias=False))

    def head(self, suffix: str, feature: Tensor) -> Tensor:
        """Logits of a feature."""
        return getattr(self, f"classifier{suffix}")(getattr(self, f"bottleneck{suffix}")(feature))


class ExpertHead(nn.Module):
    """The experts of a head, one for every set of modalities."""

    def __init__(self, width: int, kinds: int) -> None:
        super().__init__()
        self.expertHead = nn.ModuleList()
        for _ in range(kinds):
            expert = nn.Module()
            expert.mlp = nn.ModuleDict({"0": nn.Linear(width, width), "2": nn.BatchNorm1d(width)})
            self.expertHead.append(expert)

    def forward(self, chunks: Tensor) -> Tensor:
        """[B, kinds, d] -> [B, kinds, d]."""
        gelu = QuickGelu()
        pairs = zip(self.expertHead, chunks.unbind(1), strict=True)
        return torch.stack([e.mlp["2"](gelu(e.mlp["0"](x))) for e, x in pairs], dim=1)


class Fusion(nn.Module):
    """Seven learned queries and the mixture of experts."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.sets = ["".join(s) for size in (1, 2, 3) for s in itertools.combinations(LETTERS, size)]
        for name in self.sets:
            self.register_parameter(f"{name}_token", nn.Parameter(torch.zeros(1, 1, width)))
            self.add_module(name, nn.MultiheadAttention(width, QUERY_HEADS, dropout=dropout, batch_first=True))
        kinds = len(self.sets)
        self.moe = nn.Module()
        self.moe.experts = nn.ModuleList(ExpertHead(width // HEADS, kinds) for _ in range(HEADS))
        self.moe.gating_network = nn.Module()
        self.moe.gating_network.gate = gate = nn.Module()
        gate.linear_re = nn.Sequential(nn.Linear(kinds * width, width), QuickGelu(), nn.BatchNorm1d(width))
        gate.q_, gate.k_ = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, tokens: Sequence[Tensor]) -> Tensor:
        """Tokens of each modality [B, 1 + N, D] -> [B, 7 D]."""
        of = dict(zip(LETTERS, tokens, strict=True))
        batch, _, width = tokens[0].shape
        found = []
        for name in self.sets:
            seen = torch.cat([of[letter] for letter in name], dim=1)
            query = getattr(self, f"{name}_token").expand(batch, -1, -1)
            found.append(getattr(self, name)(query, seen, seen, need_weights=False)[0])
        x = torch.cat(found, dim=1)
        gate, depth = self.moe.gating_network.gate, width // HEADS
        query = gate.q_(gate.linear_re(x.flatten(1))).view(batch, HEADS, depth)
        key = gate.k_(x).view(batch, -1, HEADS, depth)
        gates = (torch.einsum("bhd,behd->beh", query, key) * depth**-0.5).softmax(1)
        chunks = x.view(batch, -1, HEADS, depth)
        answers = [expert(chunks[:, :, head]) for head, expert in enumerate(self.moe.experts)]
        return (torch.stack(answers, dim=2) * gates[..., None]).flatten(1)


class DeMo(Headed):
    """DeMo with a joint head, as on RGBNT201."""

    def __init__(self, size: Any, image_size: Sequence[int], classes: int, dropout: float) -> None:
        super().__init__()
        width = size.out
        self.BACKBONE = Backbone(size, image_size, 1)
        for name in ("rgb", "nir", "tir"):
            layers = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, width), QuickGelu())
            self.add_module(f"{name}_reduce", layers)
        self.generalFusion = Fusion(width, dropout)
        self.add_head("_moe", 7 * width, classes)
        self.add_head("", 3 * width, classes)

    def forward(self, images: Sequence[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """Images by modality -> (feature, logits) by name of the loss."""
        tokens = self.BACKBONE(images, True)
        reduced = [
            getattr(self, f"{name}_reduce")(torch.cat([x[:, 0], x[:, 1:].mean(1)], dim=1))
            for name, x in zip(("rgb", "nir", "tir"), tokens, strict=True)
        ]
        whole = [torch.cat([g[:, None], x[:, 1:]], dim=1) for g, x in zip(reduced, tokens, strict=True)]
        features = {"mixture": (self.generalFusion(whole), "_moe"), "global": (torch.cat(reduced, dim=1), "")}
        return {name: (x, self.head(suffix, x) if self.training else x) for name, (x, suffix) in features.items()}


class MDReID(Headed):
    """MDReID; the two heads that are never run are left out."""

    def __init__(self, size: Any, image_size: Sequence[int], classes: int) -> None:
        super().__init__()
        self.BACKBONE = Backbone(size, image_size, 2)
        for letter in LETTERS:
            self.add_head(f"_{letter}", size.out, classes)
        self.add_head("_s", 3 * size.out, classes)
        self.add_head("_rs", 2 * size.out, classes)
        for parameter in (self.bottleneck_rs.weight, self.classifier_rs.weight):
            parameter.requires_grad_(False)

    def forward(self, images: Sequence[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """Images by modality -> (feature, logits) by name of the loss; the shared features are those of each."""
        tokens = self.BACKBONE(images, False)
        features = {name: x[:, 0] for name, x in zip(("rgb", "nir", "tir"), tokens, strict=True)}
        features["shared"] = torch.cat([x[:, 1] for x in tokens], dim=1)
        if not self.training:
            return {name: (x, x) for name, x in features.items()}
        for x in tokens:
            self.bottleneck_rs(x.flatten(1))
        suffixes = (*(f"_{letter}" for letter in LETTERS), "_s")
        return {n: (x, self.head(s, x)) for s, (n, x) in zip(suffixes, features.items(), strict=True)}


def mined(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Distances of each sample to its farthest positive and its nearest negative."""
    squared = features.square().sum(1)
    distances = (squared[:, None] + squared[None] - 2 * features @ features.T).clamp(min=1e-12).sqrt()
    same = labels[:, None] == labels[None]
    farthest = distances.masked_fill(~same, -torch.inf).amax(1)
    return farthest, distances.masked_fill(same, torch.inf).amin(1)


def orthogonality(specific: Tensor, shared: Tensor) -> Tensor:
    """[B, M, D] each -> scalar."""
    rows = F.normalize(torch.cat([specific, shared], dim=1), dim=-1)
    cosines = rows @ rows.mT
    directions = cosines / (cosines.square().sum(-1, keepdim=True) + 1e-6).sqrt()
    count = specific.shape[1]
    wanted = torch.eye(2 * count, device=rows.device, dtype=rows.dtype)
    wanted[count:, count:] = 1
    return (directions @ directions.mT - wanted).square().mean()


def disentangling(specific: Tensor, shared: Tensor, labels: Tensor) -> Tensor:
    """[B, M D] each -> scalar."""
    kinds = (torch.cat([specific, shared], dim=1), specific.detach(), shared.detach())
    pairs = [mined(each, labels) for each in kinds]
    same, other = [p.max() for p, _ in pairs], [n.min() for _, n in pairs]
    return (same[0] / sum(same)).abs() + (other[0] / sum(other) - 1).abs()


def losses(output: dict[str, tuple[Tensor, Tensor]], labels: Tensor, identities: int) -> dict[str, Tensor]:
    """Every term by the names of ours, and ``loss``."""
    del identities
    terms: dict[str, Tensor] = {}
    total = torch.zeros((), device=labels.device)
    for name, (feature, logits) in output.items():
        farthest, nearest = mined(feature.float() if feature.dtype == torch.bfloat16 else feature, labels)
        terms[f"ce_{name}"] = F.cross_entropy(logits, labels, label_smoothing=SMOOTHING)
        terms[f"triplet_{name}"] = F.softplus(farthest - nearest).mean()
        weight = SHARED_WEIGHT if name == "shared" else 1.0
        total = total + weight * (CE_WEIGHT * terms[f"ce_{name}"] + terms[f"triplet_{name}"])
    if "shared" in output:
        specific = torch.stack([output[name][0] for name in ("rgb", "nir", "tir")], dim=1)
        shared = output["shared"][0].view_as(specific)
        terms["orthogonality"] = orthogonality(specific, shared)
        terms["disentangling"] = disentangling(specific.flatten(1), shared.flatten(1), labels)
        total = total + ORTHOGONALITY_WEIGHT * terms["orthogonality"]
        total = total + DISENTANGLING_WEIGHT * terms["disentangling"]
    return {**terms, "loss": total}


def optimizer(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """Adam with the rates of our groups."""
    groups: dict[float, list[nn.Parameter]] = {}
    positions = isinstance(model, MDReID)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        trunk = name.startswith("BACKBONE.base.") and not (positions and "positional_embedding" in name)
        factor = TRUNK_FACTOR if trunk else BIAS_FACTOR if "bias" in name else 1.0
        groups.setdefault(factor * rate, []).append(parameter)
    sets = [{"params": members, "lr": each} for each, members in groups.items()]
    return torch.optim.Adam(sets, weight_decay=WEIGHT_DECAY)
