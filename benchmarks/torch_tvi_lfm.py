"""Both stages of TVI-LFM in plain PyTorch: the other side of `step_time.py --method tvi_base` and `--method tvi_lfm`.

Written as a PyTorch user would write them: CLIP's text tower of `nn.MultiheadAttention` layers, images changed to one
channel one after the other, a frozen visual network under `torch.no_grad` in train mode, an Adam group for each kind of
parameter. Nothing is shared with `mmreid_jax`; parameters have the names of the authors' checkpoints, so that exported
weights of ours load.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torch_vi
from torch import Tensor, nn

WORDS, LENGTH = 49408, 77
LUMA = (0.2989, 0.5870, 0.1140)


class Gem(nn.Module):
    """The generalised mean of a map, with a learned power."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C]."""
        return torch_vi.widened(maps).clamp(min=1e-6).pow(self.p).mean((2, 3)).pow(1 / self.p)


class Visual(nn.Module):
    """A stem for each modality, shared stages, pooling."""

    def __init__(self, stages: Sequence[int], width: int) -> None:
        super().__init__()
        shared = torch_vi.Stages(stages, width)
        self.width = shared.width
        for name in ("rgb_model", "ir_model"):
            conv = nn.Conv2d(3, width, 7, 2, 3, bias=False)
            stem = nn.Sequential(conv, nn.BatchNorm2d(width), nn.MaxPool2d(3, 2, 1))
            self.add_module(name, nn.ModuleDict({"resnet_conv": stem}))
        stages_in_turn = nn.Sequential(shared.layer1, shared.layer2, shared.layer3, shared.layer4)
        self.shared_model = nn.ModuleDict({"resnet_conv": stages_in_turn})
        self.GEM = Gem()

    def forward(self, visible: Tensor, infrared: Tensor) -> Tensor:
        """[V, 3, H, W], [I, 3, H, W] -> maps [V + I, C, h, w]."""
        both = [self.rgb_model["resnet_conv"](visible), self.ir_model["resnet_conv"](infrared)]
        return self.shared_model["resnet_conv"](torch.cat(both))


class Block(nn.Module):
    """A transformer block of CLIP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, L, W], [L, L] -> [B, L, W]."""
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, attn_mask=mask.to(y.dtype), need_weights=False)[0]
        y = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](y * torch.sigmoid(1.702 * y))


class Clip(nn.Module):
    """The visual network, and CLIP's text tower beside it where `tower` has its sizes."""

    def __init__(self, stages: Sequence[int], width: int, tower: dict[str, int] | None) -> None:
        super().__init__()
        self.visual = Visual(stages, width)
        if tower is None:
            return
        size = tower["width"]
        self.token_embedding = nn.Embedding(WORDS, size)
        self.positional_embedding = nn.Parameter(torch.zeros(LENGTH, size))
        blocks = nn.ModuleList([Block(size, tower["heads"]) for _ in range(tower["depth"])])
        self.transformer = nn.ModuleDict({"resblocks": blocks})
        self.ln_final = nn.LayerNorm(size)
        self.text_projection = nn.Parameter(torch.zeros(size, self.visual.width))
        mask = torch.full((LENGTH, LENGTH), -torch.inf).triu(1)
        self.register_buffer("mask", mask, persistent=False)

    def read(self, tokens: Tensor) -> Tensor:
        """int [B, L] -> [B, C], at the end of each text."""
        x = self.token_embedding(tokens) + self.positional_embedding
        for block in self.transformer["resblocks"]:
            x = block(x, self.mask)
        x = self.ln_final(x) @ self.text_projection
        return torch_vi.widened(x[torch.arange(len(x), device=x.device), tokens.argmax(1)])


class Head(nn.Module):
    """Batch norm and classifier."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.BN = nn.BatchNorm1d(channels)
        self.classifier = nn.Linear(channels, classes, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """[N, C] -> training: logits [N, classes]; evaluation: embeddings [N, C] of length one."""
        after = self.BN(features)
        return self.classifier(after) if self.training else F.normalize(after)


class TviLfm(nn.Module):
    """The base stage without sizes of a text tower, the text stage with them."""

    def __init__(
        self,
        stages: Sequence[int],
        width: int,
        classes: int,
        tower: dict[str, int] | None = None,
        channels: bool = True,
    ) -> None:
        """`channels`: whether training images are changed to one channel, drawn anew in each step."""
        super().__init__()
        self.base_model = Clip(stages, width, tower)
        self.classifier = Head(self.base_model.visual.width, classes)
        self.channels = channels
        self.text = tower is not None
        if self.text:
            self.backup_pool = copy.deepcopy(self.base_model.visual.GEM)
            self.backup_classifier = copy.deepcopy(self.classifier)
            for part in (self.base_model.visual, self.backup_pool, self.backup_classifier):
                part.requires_grad_(False)

    def train(self, mode: bool = True) -> TviLfm:
        """The copies of the base model's head stay in evaluation mode."""
        super().train(mode)
        if self.text:
            self.backup_classifier.eval()
        return self

    def forward(self, inputs: Sequence[Tensor]) -> Any:
        """Visible images, in training second views of them, infrared images; with text tokens of both captions.

        Returns:
          Training: features and logits of all kinds, [3 B or 5 B, ...]. Evaluation: embeddings [B, C] by name.
        """
        visual = self.base_model.visual
        *images, words, own = inputs if self.text else (*inputs, None, None)
        if not self.training:
            return self.embeddings(visual(images[0], images[-1]), words, own)
        first, second, infrared = images
        if self.channels:
            second = changed(second, exchanged)
            infrared = changed(infrared, adapted)
        with torch.set_grad_enabled(not self.text):
            features = visual.GEM(visual(torch.cat([first, second]), infrared))
        if self.text:
            said, filtered = self.base_model.read(torch.cat([words, own])).chunk(2)
            features = torch.cat([features, features[2 * len(first) :] + said - filtered, said])
        return features, self.classifier(features)

    def embeddings(self, maps: Tensor, words: Tensor | None, own: Tensor | None) -> dict[str, Tensor]:
        """What is compared, of the maps [2 B, C, h, w] of visible and infrared images."""
        visible, infrared = self.base_model.visual.GEM(maps).chunk(2)
        if words is None:
            return {"visible": self.classifier(visible), "infrared": self.classifier(infrared)}
        said, filtered = self.base_model.read(torch.cat([words, own])).chunk(2)
        before = self.backup_classifier(self.backup_pool(maps)).chunk(2)
        fusion, image, text = (self.classifier(x) for x in (infrared + said - filtered, infrared, said))
        found = {"joint": self.classifier(visible), "backup": before[0], "ir": before[1]}
        return {**found, "text": text, "fusion": fusion, "mer": fusion + image + text}

    def losses(self, output: Any, labels: Tensor, identities: int) -> dict[str, Tensor]:
        """Both terms and the ``loss``; labels int [B]."""
        del identities
        features, logits = output
        every = labels.repeat(len(features) // len(labels))
        terms = {
            "ce": F.cross_entropy(torch_vi.widened(logits), every),
            "triplet": torch_vi.weighted_regularised_triplet(features, every),
        }
        return {**terms, "loss": terms["ce"] + terms["triplet"]}


def changed(images: Tensor, change: Any) -> Tensor:
    """Image after image."""
    return torch.stack([change(image) for image in images]).contiguous(memory_format=torch.channels_last)


def exchanged(image: Tensor) -> Tensor:
    """A visible image [3, H, W], half of the time in the grey of one of its channels."""
    return image if random.random() < 0.5 else one_channel(image, random.randrange(3))


def adapted(image: Tensor) -> Tensor:
    """An infrared image [3, H, W] in one of its channels, or a mixture of them, or as it is."""
    choice = random.randrange(4)
    if choice < 3:
        return one_channel(image, choice)
    if random.random() < 0.6:
        return sum(weight * channel for weight, channel in zip(LUMA, image, strict=True)).expand_as(image)
    return image


def one_channel(image: Tensor, choice: int) -> Tensor:
    """[3, H, W] with one of its channels three times."""
    return image[choice : choice + 1].expand_as(image)


def optimizer(model: TviLfm, rate: float) -> torch.optim.Optimizer:
    """Adam with coupled weight decay; head and the biases of the text tower's blocks at twice the rate."""
    fast = []
    usual = []
    for name, value in model.named_parameters():
        if value.requires_grad:
            doubled = name.startswith("classifier.") or (".transformer." in name and "bias" in name)
            (fast if doubled else usual).append(value)
    groups = [{"params": usual}, {"params": fast, "lr": 2 * rate}]
    return torch.optim.Adam(groups, lr=rate, weight_decay=5e-4)
