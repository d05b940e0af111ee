"""IEEE's networks, losses and training step in plain PyTorch: the other side of `step_time.py --method ieee`.

Written as a PyTorch user would write it. It shares no code with `mmreid_jax`; its parameters have the names of the
authors' checkpoints, so that exported weights of ours load into it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torch_htt
from torch import Tensor, nn

PARTS, PART_WIDTH, EMBEDDING = 6, 768, 128
LETTERS = "RNT"


class Backbone(torch_htt.ResNet):
    """ResNet with torchvision's stem and last stride 1; images [B, 3, H, W] -> maps [B, C, H / 16, W / 16]."""

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, C, h, w]."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, 2, 1)
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
        return x


class ConvNormReLU(nn.Module):
    """1x1 convolution, batch norm, ReLU."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, width, h, w]."""
        return self.layers(x)


class ChannelAttention(nn.Module):
    """Channel weights from mean and maximum over space."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // 16
        self.fc = nn.Sequential(
            nn.Conv2d(channels, narrow, 1, bias=False), nn.ReLU(), nn.Conv2d(narrow, channels, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, 1, 1]."""
        return torch.sigmoid(self.fc(F.adaptive_avg_pool2d(x, 1)) + self.fc(F.adaptive_max_pool2d(x, 1)))


class Relation(nn.Module):
    """Part + 2 gamma W global; the other two projections are those of the checkpoints and do nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.param = nn.Parameter(torch.zeros(1))
        self.conv_query = nn.Linear(width, width)
        self.conv_part = nn.Linear(width, width)
        self.conv_value = nn.Linear(width, width)

    def forward(self, part: Tensor, whole: Tensor) -> Tensor:
        """[B, D, parts], [B, D] -> [B, D, parts]."""
        return part + 2 * self.param * self.conv_part(whole)[:, :, None]


class Ieee(nn.Module):
    """Three streams, their interaction, parts, embeddings and classifiers."""

    def __init__(self, stages: Sequence[int], classes: int) -> None:
        super().__init__()
        self.backbone = nn.ModuleList([Backbone(stages) for _ in LETTERS])
        channels = self.backbone[0].width
        self.convOne = nn.ModuleList([ConvNormReLU(channels, channels) for _ in LETTERS])
        self.convAvgRest = nn.ModuleList([ConvNormReLU(channels, channels) for _ in LETTERS])
        self.CA = nn.ModuleList([ChannelAttention(channels) for _ in LETTERS])
        self.reduce_layer = nn.ModuleList([ConvNormReLU(channels, PART_WIDTH) for _ in LETTERS])
        self.REM = nn.ModuleList([Relation(PART_WIDTH) for _ in LETTERS])
        for letter in LETTERS:
            embeddings = [
                nn.Sequential(nn.Linear(PART_WIDTH, EMBEDDING), nn.BatchNorm1d(EMBEDDING), nn.ReLU())
                for _ in range(PARTS)
            ]
            self.add_module(f"fc_{letter}", nn.ModuleList(embeddings))
            self.add_module(
                f"classifier_{letter}", nn.ModuleList([nn.Linear(EMBEDDING, classes) for _ in range(PARTS)])
            )

    def forward(self, images: Sequence[Tensor]) -> tuple[list[list[Tensor]], list[Tensor]]:
        """Images by modality -> logits [modality][part] [B, C], embeddings [modality] [B, parts * E]."""
        maps = [backbone(image) for backbone, image in zip(self.backbone, images, strict=True)]
        total = sum(maps)
        logits, embeddings = [], []
        for i, letter in enumerate(LETTERS):
            rest = self.convAvgRest[i](total - maps[i])
            mixed = self.convOne[i](maps[i]) + self.CA[i](rest) * rest + rest
            whole = self.reduce_layer[i](F.adaptive_avg_pool2d(maps[i], 1)).flatten(1)
            parts = self.reduce_layer[i](F.adaptive_avg_pool2d(mixed, (PARTS, 1))).flatten(2)
            related = self.REM[i](parts, whole)
            embedded = [layer(related[:, :, p]) for p, layer in enumerate(getattr(self, f"fc_{letter}"))]
            classifiers = getattr(self, f"classifier_{letter}")
            logits.append([layer(x) for layer, x in zip(classifiers, embedded, strict=True)])
            embeddings.append(torch.cat(embedded, dim=1))
        return logits, embeddings


def losses(output: tuple[list[list[Tensor]], list[Tensor]], labels: Tensor, identities: int) -> dict[str, Tensor]:
    """Both terms of IEEE's loss by name, and their sum ``loss``."""
    logits, embeddings = output
    entropies = [F.cross_entropy(x.float(), labels, label_smoothing=0.1) for x in itertools.chain(*logits)]
    unit = F.normalize(torch.stack(embeddings).float(), dim=-1)
    terms = {"ce": torch.stack(entropies).sum(), "between": torch_htt.three_modal_margin(unit, identities, 1.0)}
    terms["loss"] = terms["ce"] + terms["between"]
    return terms


def optimizer(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """SGD as released: Nesterov, decay on everything."""
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
