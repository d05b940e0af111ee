"""Hetero-Center, Base, AGW, DDAG and DEEN in plain PyTorch: the other side of `step_time.py --method ...`.

Written as a PyTorch user would write them: modules, a head for each strip and attention head, loops over samples and
identities where the papers define a loss so. Nothing is shared with `mmreid_jax`; parameters have the names of the
authors' checkpoints, without those that their networks never use, so that exported weights of ours load.

Batches are visible images, then infrared ones, of the same identities in the same order. A network's output in
training is what its `losses` takes; in evaluation it is the features that are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torch_htt
import torch_ieee
from torch import Tensor, nn

STRIPS, STRIP_WIDTH, HC_WEIGHT = 6, 512, 0.5
PARTS, GRAPH_HEADS, GRAPH_WIDTH = 3, 4, 512
MARGIN = 0.3
NON_LOCAL = {"layer2": (2, 3), "layer3": (3, 4, 5)}
COPIES, CPM_WEIGHT, CPM_MARGIN, ORTHOGONALITY_WEIGHT = 3, 0.8, 0.2, 0.01


class HeteroCenter(nn.Module):
    """A ResNet for each modality, strips, and for each of them an embedding and a classifier."""

    def __init__(self, stages: Sequence[int], width: int, classes: int) -> None:
        super().__init__()
        self.visible_net = nn.ModuleDict({"visible": torch_ieee.Backbone(stages, width)})
        self.thermal_net = nn.ModuleDict({"thermal": torch_ieee.Backbone(stages, width)})
        channels = self.visible_net["visible"].width
        for k in range(1, STRIPS + 1):
            embed = nn.Sequential(nn.Linear(channels, STRIP_WIDTH), nn.BatchNorm1d(STRIP_WIDTH))
            classify = nn.Sequential(nn.LeakyReLU(0.1), nn.Linear(STRIP_WIDTH, classes))
            self.add_module(f"feature{k}", nn.ModuleDict({"feat_block": embed}))
            self.add_module(f"classifier{k}", nn.ModuleDict({"classifier": classify}))

    def forward(self, images: Sequence[Tensor]) -> Any:
        """[visible, infrared], [B, 3, H, W] each -> training: logits and unit embeddings by strip, [2 B, ...] each."""
        maps = torch.cat([self.visible_net["visible"](images[0]), self.thermal_net["thermal"](images[1])])
        stride = maps.shape[2] // STRIPS
        kernel = (maps.shape[2] - (STRIPS - 1) * stride, maps.shape[3])
        strips = F.avg_pool2d(maps, kernel, (stride, maps.shape[3])).flatten(2)
        logits, units = [], []
        for k in range(STRIPS):
            embedded = self.get_submodule(f"feature{k + 1}.feat_block")(strips[:, :, k])
            units.append(embedded / embedded.norm(dim=1, keepdim=True))
            if self.training:
                logits.append(self.get_submodule(f"classifier{k + 1}.classifier")(embedded))
        if self.training:
            return logits, units
        pooled = strips / strips.norm(dim=1, keepdim=True)
        return torch.cat(units, 1), pooled.transpose(1, 2).flatten(1)

    def losses(self, output: Any, labels: Tensor, identities: int) -> dict[str, Tensor]:
        """The terms, summed over the strips, and the ``loss``; labels int [B]."""
        logits, units = output
        both = torch.cat([labels, labels])
        terms = {
            "ce": sum(F.cross_entropy(widened(x), both) for x in logits),
            "hc": sum(hetero_center(widened(x), identities) for x in units),
        }
        return {**terms, "loss": terms["ce"] + HC_WEIGHT * terms["hc"]}


class Stem(nn.Module):
    """The part of a ResNet that each modality has for itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, width, H / 4, W / 4]."""
        return F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, 2, 1)


class Stages(torch_htt.ResNet):
    """The part that both share."""

    def __init__(self, stages: Sequence[int], width: int) -> None:
        super().__init__(stages, width)
        del self.conv1, self.bn1


class NonLocal(nn.Module):
    """x + BN(W (theta phi^T / M) g), with all pairs of the M positions written out and one inner channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Sequential(nn.Conv2d(channels, 1, 1))
        self.theta = nn.Conv2d(channels, 1, 1)
        self.phi = nn.Conv2d(channels, 1, 1)
        self.W = nn.Sequential(nn.Conv2d(1, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> the same shape."""
        theta, phi, g = (layer(x).flatten(2) for layer in (self.theta, self.phi, self.g))
        similarity = theta.transpose(1, 2) @ phi / phi.shape[2]
        y = (similarity @ g.transpose(1, 2)).transpose(1, 2)
        return x + self.W(y.reshape(len(x), 1, *x.shape[2:]))


class TwoStream(nn.Module):
    """Own stems, shared stages, optionally with non-local blocks; neck and classifier."""

    def __init__(self, stages: Sequence[int], width: int, classes: int, non_local: bool = False) -> None:
        super().__init__()
        self.thermal_module = nn.ModuleDict({"thermal": Stem(width)})
        self.visible_module = nn.ModuleDict({"visible": Stem(width)})
        self.base_resnet = nn.ModuleDict({"base": Stages(stages, width)})
        self.follow: dict[str, dict[int, nn.Module]] = {}
        channels = self.base_resnet["base"].width
        if non_local:
            for stage, blocks in NON_LOCAL.items():
                number = int(stage[-1])
                there = [index for index in blocks if index < stages[number - 1]]
                layers = nn.ModuleList([NonLocal(4 * width * 2 ** (number - 1)) for _ in there])
                self.add_module(f"NL_{number}", layers)
                self.follow[stage] = dict(zip(there, layers, strict=True))
        self.bottleneck = nn.BatchNorm1d(channels)
        self.bottleneck.bias.requires_grad_(False)
        self.classifier = nn.Linear(channels, classes, bias=False)

    def maps(self, images: Sequence[Tensor]) -> Tensor:
        """[visible, infrared], [B, 3, H, W] each -> [2 B, C, h, w]."""
        x = torch.cat([self.visible_module["visible"](images[0]), self.thermal_module["thermal"](images[1])])
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            follow = self.follow.get(stage, {})
            for index, block in enumerate(getattr(self.base_resnet["base"], stage)):
                x = block(x)
                x = follow[index](x) if index in follow else x
        return x


class Base(TwoStream):
    """Average pooling, cross-entropy and batch-hard triplet loss."""

    def pool(self, maps: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C]."""
        return maps.mean((2, 3))

    def metric_loss(self, pooled: Tensor, labels: Tensor) -> Tensor:
        """[N, C], int [N] -> scalar."""
        return batch_hard_triplet(pooled, labels, MARGIN)

    def forward(self, images: Sequence[Tensor]) -> Any:
        """[visible, infrared], [B, 3, H, W] each -> training: pooled features and logits, [2 B, ...] each."""
        pooled = self.pool(self.maps(images))
        features = self.bottleneck(pooled)
        if self.training:
            return pooled, self.classifier(features)
        return F.normalize(pooled), F.normalize(features)

    def losses(self, output: Any, labels: Tensor, identities: int) -> dict[str, Tensor]:
        """Both terms and the ``loss``; labels int [B]."""
        del identities
        pooled, logits = output
        both = torch.cat([labels, labels])
        terms = {"ce": F.cross_entropy(widened(logits), both), "triplet": self.metric_loss(widened(pooled), both)}
        return {**terms, "loss": terms["ce"] + terms["triplet"]}


class Agw(Base):
    """Non-local blocks, generalised-mean pooling, weighted regularised triplet loss."""

    def __init__(self, stages: Sequence[int], width: int, classes: int) -> None:
        super().__init__(stages, width, classes, non_local=True)

    def pool(self, maps: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C]."""
        return ((maps**3).mean((2, 3)) + 1e-12) ** (1 / 3)

    def metric_loss(self, pooled: Tensor, labels: Tensor) -> Tensor:
        """[N, C], int [N] -> scalar."""
        return weighted_regularised_triplet(pooled, labels)


class WeightedParts(nn.Module):
    """Parts of an image that attend to one another and refine its feature."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.full((PARTS,), 1 / PARTS))
        self.fc1 = nn.Sequential(nn.Conv2d(channels, channels, 1))
        self.fc2 = nn.Conv2d(channels, channels, 1)
        self.fc3 = nn.Conv2d(channels, channels, 1)
        self.bottleneck = nn.BatchNorm1d(channels)
        self.bottleneck.bias.requires_grad_(False)

    def forward(self, maps: Tensor, features: Tensor) -> Tensor:
        """[B, C, h, w], [B, C] -> [B, C]."""
        parts = F.adaptive_avg_pool2d(maps, (PARTS, 1))
        query, key, value = (layer(parts).flatten(2) for layer in (self.fc1, self.fc2, self.fc3))
        attention = (query.transpose(1, 2) @ key).softmax(2)
        refined = attention @ value.transpose(1, 2)
        gate = self.gate.softmax(0)
        return self.bottleneck(sum(gate[p] * refined[:, p] for p in range(PARTS)) + features)


class GraphAttention(nn.Module):
    """One head of attention between the samples of a batch."""

    def __init__(self, channels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.W = nn.Parameter(nn.init.xavier_uniform_(torch.empty(channels, width), 1.414))
        self.a = nn.Parameter(nn.init.xavier_uniform_(torch.empty(2 * width, 1), 1.414))

    def forward(self, nodes: Tensor, neighbours: Tensor) -> Tensor:
        """[N, C], bool [N, N] -> [N, width]."""
        h = nodes @ self.W
        own, other = self.a.chunk(2)
        scores = F.leaky_relu(h @ own + (h @ other).T, 0.2).masked_fill(~neighbours, -9e15)
        return F.dropout(scores.softmax(1), self.dropout, self.training) @ h


class Ddag(Base):
    """Part attention, in training graph attention whose loss weighs the more the lower the other losses have become."""

    def __init__(
        self, stages: Sequence[int], width: int, classes: int, dropout: float, epoch_ends: Sequence[int]
    ) -> None:
        super().__init__(stages, width, classes)
        channels = self.base_resnet["base"].width
        self.dropout = dropout
        self.wpa = WeightedParts(channels)
        for head in range(GRAPH_HEADS):
            self.add_module(f"attention_{head}", GraphAttention(channels, GRAPH_WIDTH, dropout))
        self.out_att = GraphAttention(GRAPH_HEADS * GRAPH_WIDTH, classes, dropout)
        self.epoch_ends = set(epoch_ends)
        self.step, self.weight = 0, 0.0
        self.of_epoch: list[float] = []

    def forward(self, images: Sequence[Tensor]) -> Any:
        """[visible, infrared] -> training: pooled features, logits and logits of the refined features, [2 B, ...]."""
        maps = self.maps(images)
        pooled = self.pool(maps)
        features = self.bottleneck(pooled)
        refined = self.wpa(maps, features)
        if self.training:
            return pooled, self.classifier(features), self.classifier(refined)
        return F.normalize(features), F.normalize(refined)

    def graph(self, nodes: Tensor, labels: Tensor) -> Tensor:
        """Features [N, C] and int [N] -> log-probabilities [N, classes]."""
        neighbours = labels[:, None] == labels[None, :]
        nodes = F.dropout(nodes, self.dropout, self.training)
        heads = [F.elu(getattr(self, f"attention_{head}")(nodes, neighbours)) for head in range(GRAPH_HEADS)]
        joined = F.dropout(torch.cat(heads, 1), self.dropout, self.training)
        return F.elu(self.out_att(joined, neighbours)).log_softmax(1)

    def losses(self, output: Any, labels: Tensor, identities: int) -> dict[str, Tensor]:
        """All terms, the weight of the graph's, and the ``loss``; labels int [B]. Counts the steps of training."""
        pooled, logits, logits_att = output
        both = torch.cat([labels, labels])
        terms = super().losses((pooled, logits), labels, identities)
        terms["part"] = F.cross_entropy(widened(logits_att), both)
        terms["graph"] = F.nll_loss(self.graph(widened(pooled), both), both)
        others = terms["loss"] + terms["part"]
        if self.step in self.epoch_ends:
            self.weight = 1 / (1 + sum(self.of_epoch) / len(self.of_epoch))
            self.of_epoch = []
        self.of_epoch.append(others.item())
        self.step += 1
        return {**terms, "graph_weight": torch.tensor(self.weight), "loss": others + self.weight * terms["graph"]}


class ChannelAttention(nn.Module):
    """Channels of the lower map weighed by the higher one."""

    def __init__(self, high: int, low: int, stride: int) -> None:
        super().__init__()
        self.g = nn.Conv2d(low, low, 1)
        self.theta = nn.Conv2d(high, low, 1)
        self.phi = nn.Conv2d(low, low, 1, stride)
        self.W = nn.Sequential(nn.Conv2d(low, high, 1, stride), nn.BatchNorm2d(high))

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """[B, C, h, w], [B, c, H, W] -> [B, C, h, w]."""
        theta, phi, g = (x.flatten(2) for x in (self.theta(high), self.phi(low), self.g(low)))
        y = theta @ phi.transpose(1, 2) / g.shape[1] @ g
        return high + self.W(y.reshape(low.shape))


class PositionAttention(nn.Module):
    """Positions of the lower map weighed by the higher one, two of each map in one row."""

    def __init__(self, high: int, low: int) -> None:
        super().__init__()
        self.g = nn.Conv2d(low, low // 2, 1)
        self.theta = nn.Conv2d(high, low // 2, 1)
        self.phi = nn.Conv2d(low, low // 2, 1)
        self.W = nn.Sequential(nn.Conv2d(low // 2, high, 1), nn.BatchNorm2d(high))

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """[B, C, h, w], [B, c, H, W] -> [B, C, h, w]."""
        rows = low.shape[:2]
        theta, phi, g = (x.reshape(*rows, -1) for x in (self.theta(high), self.phi(low), self.g(low)))
        energy = theta.transpose(1, 2) @ phi / phi.shape[2]
        y = (energy @ g.transpose(1, 2)).transpose(1, 2)
        return high + self.W(y.reshape(len(low), -1, *high.shape[2:]))


class Aggregation(nn.Module):
    """Both attentions, one after the other."""

    def __init__(self, high: int, low: int, stride: int) -> None:
        super().__init__()
        self.CNL = ChannelAttention(high, low, stride)
        self.PNL = PositionAttention(high, low)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """[B, C, h, w], [B, c, H, W] -> [B, C, h, w]."""
        return self.PNL(self.CNL(high, low), low)


class Expansion(nn.Module):
    """Maps, and two more of each from dilated convolutions."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        for branch in (1, 2):
            for dilation in (1, 2, 3):
                narrow = nn.Conv2d(channels, channels // 4, 3, 1, dilation, dilation, bias=False)
                self.add_module(f"FC{branch}{dilation}", narrow)
            self.add_module(f"FC{branch}", nn.Conv2d(channels // 4, channels, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """[N, C, h, w] -> [3 N, C, h, w]."""
        copies = [maps]
        for branch in (1, 2):
            narrow = sum(getattr(self, f"FC{branch}{dilation}")(maps) for dilation in (1, 2, 3)) / 3
            copies.append(getattr(self, f"FC{branch}")(F.relu(narrow)))
        return F.dropout(torch.cat(copies), self.dropout, self.training)


class Deen(Base):
    """Aggregated stages, three embeddings of every image, centre-guided pairs and orthogonality."""

    def __init__(self, stages: Sequence[int], width: int, classes: int, dropout: float) -> None:
        super().__init__(stages, width, classes)
        self.DEE = Expansion(16 * width, dropout)
        self.MFA1 = Aggregation(4 * width, width, 1)
        self.MFA2 = Aggregation(8 * width, 4 * width, 2)
        self.MFA3 = Aggregation(16 * width, 8 * width, 2)

    def maps(self, images: Sequence[Tensor]) -> Tensor:
        """[visible, infrared], [B, 3, H, W] each -> [6 B, C, h, w]."""
        x = torch.cat([self.visible_module["visible"](images[0]), self.thermal_module["thermal"](images[1])])
        shared = self.base_resnet["base"]
        for number, aggregate in ((1, self.MFA1), (2, self.MFA2), (3, self.MFA3)):
            x = aggregate(getattr(shared, f"layer{number}")(x), x)
        return shared.layer4(self.DEE(x))

    def losses(self, output: Any, labels: Tensor, identities: int) -> dict[str, Tensor]:
        """All terms and the ``loss``; labels int [B]."""
        pooled, logits = widened(output[0]), widened(output[1])
        every = labels.repeat(2 * COPIES)
        first, second, third = pooled.chunk(COPIES)
        terms = {"ce": F.cross_entropy(logits, every), "triplet": batch_hard_triplet(pooled, every, MARGIN)}
        terms["cpm_2"] = center_guided_pairs(first, second, identities)
        terms["cpm_3"] = center_guided_pairs(first, third, identities)
        terms["orthogonality"] = (second * third).sum() / len(pooled)
        total = terms["ce"] + terms["triplet"] + CPM_WEIGHT * (terms["cpm_2"] + terms["cpm_3"])
        return {**terms, "loss": total + ORTHOGONALITY_WEIGHT * terms["orthogonality"]}


def center_guided_pairs(copy: Tensor, other: Tensor, identities: int) -> Tensor:
    """DEEN's loss of two copies, [2 B, D] each, visible rows first, B being blocks of identities -> scalar."""
    rows = torch.cat([copy, other])
    v, r, of_v, of_r = (torch.stack([x.mean(0) for x in part.chunk(identities)]) for part in rows.chunk(4))
    others = ~torch.eye(identities, dtype=torch.bool, device=rows.device)

    def half(own: Tensor, across: Tensor, expanded: Tensor) -> Tensor:
        near, far = (pair_distances(x, expanded).diagonal() for x in (across, own))
        total = F.relu(near - far.detach() + CPM_MARGIN).mean()
        for centers in (expanded, own):
            nearest = torch.stack([distances(centers)[i][others[i]].min() for i in range(identities)])
            total = total + 0.5 * F.relu(near - nearest + CPM_MARGIN).mean()
        return total

    return (half(v, r, of_v) + half(r, v, of_r)) / 2


def widened(x: Tensor) -> Tensor:
    """In at least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def hetero_center(units: Tensor, identities: int) -> Tensor:
    """Squared distance of the modality centres of every identity, summed: [2 B, D], B being blocks of identities."""
    visible, infrared = units.chunk(2)
    pairs = zip(visible.chunk(identities), infrared.chunk(identities), strict=True)
    return sum(F.relu((a.mean(0) - b.mean(0)).square().sum()) for a, b in pairs)


def distances(features: Tensor) -> Tensor:
    """Euclidean, [N, D] -> [N, N]."""
    return pair_distances(features, features)


def pair_distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean, [N, D], [M, D] -> [N, M]."""
    squared = x.square().sum(1)[:, None] + y.square().sum(1)[None, :]
    return (squared - 2 * x @ y.T).clamp(min=1e-12).sqrt()


def batch_hard_triplet(features: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Batch-hard triplet loss with a margin, sample by sample: [N, D], int [N] -> scalar."""
    distance = distances(features)
    same = labels[:, None] == labels[None, :]
    positive = torch.stack([distance[i][same[i]].max() for i in range(len(labels))])
    negative = torch.stack([distance[i][~same[i]].min() for i in range(len(labels))])
    return F.relu(positive - negative + margin).mean()


def weighted_regularised_triplet(features: Tensor, labels: Tensor) -> Tensor:
    """AGW's triplet loss; the maximum of a row is over the masked entries' zeros too, as in the authors' code."""
    distance = distances(features)
    positive = (labels[:, None] == labels[None, :]).to(distance.dtype)
    means = []
    for mask, sign in ((positive, 1), (1 - positive, -1)):
        values = distance * mask
        logits = sign * values
        weights = (logits - (logits * mask).amax(1, keepdim=True)).exp() * mask
        weights = weights / (weights.sum(1, keepdim=True) + 1e-6)
        means.append((weights * values).sum(1))
    farthest, nearest = means
    return F.soft_margin_loss(nearest - farthest, torch.ones_like(nearest))


def optimizer(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """SGD as released: Nesterov, decay on everything, the ResNets and non-local blocks at a tenth of the rate."""
    slow = ("visible_", "thermal_", "base_resnet", "NL_", "MFA", "DEE")
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    trunk = [value for name, value in trained if name.startswith(slow)]
    heads = [value for name, value in trained if not name.startswith(slow)]
    groups = [{"params": trunk, "lr": 0.1 * rate}, {"params": heads}]
    return torch.optim.SGD(groups, lr=rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
