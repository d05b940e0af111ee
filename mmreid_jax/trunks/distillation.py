"""What a transformer learns from smaller networks that know people already: their features, maps and similarities.

A small transformer learns slowly by identities alone. A ResNet in the package tells it of every image, augmented as the
student sees it, what to answer: the pooled feature by the class token, the feature at every place of the last map by
the patches there, and how alike all images of a batch are.

Reference: Hinton et al. 2015 (distillation); Beyer et al. 2022 (teacher and student see the same crops); Tung and Mori
2019 (similarities).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmreid_jax.losses.vectors import l2_normalise
from mmreid_jax.models.resnet import ResNet, average_pool

Array = jax.Array
TEMPERATURE = 0.1


STAGES = ("layer2", "layer4")
"""Of a teacher, whose maps the patches copy: one of what is there, and the last."""


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trunk in the package, ``drawn/NAME``, and the modalities that it teaches."""

    trunk: str
    modalities: tuple[str, ...]


def answers(backbone: ResNet, variables: Mapping[str, Any], images: Array) -> dict[str, Array]:
    """What a teacher makes of normalised images: its maps by stage [N, h, w, C], and their mean, ``feature`` [N, C]."""
    stages: Any = backbone.apply(dict(variables), images, False, return_stages=True)
    return {"feature": average_pool(stages[STAGES[-1]])} | {name: stages[name] for name in STAGES}


def moments(told: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
    """Mean and deviation of every channel of `answers` [..., C], by name."""
    found = {}
    for name, values in told.items():
        axes = tuple(range(values.ndim - 1))
        found[name] = (values.mean(axes), values.std(axes) + 1e-3)
    return found


def standardised(told: Mapping[str, Array], of: Mapping[str, tuple[Array, Array]]) -> dict[str, Array]:
    """The `answers` with these `moments` taken out: what comes out of a ReLU is all on one side, its cosines near 1."""
    return {name: (values - of[name][0]) / of[name][1] for name, values in told.items()}


class Copies(nn.Module):
    """Linear maps from the tokens of a student to what one teacher answers.

    Attributes:
      grid: rows and columns of the student's patches.
    """

    grid: tuple[int, int]

    @nn.compact
    def __call__(self, tokens: Array, told: Mapping[str, Array]) -> dict[str, Array]:
        """Tokens [N, 1 + patches, D], class token first, and answers, whose shapes alone count -> their copies."""
        copied = {}
        for name, values in told.items():
            if values.ndim == 2:
                seen = tokens[:, 0]
            else:
                _, rows, columns, _ = values.shape
                seen = mean_patches(tokens[:, 1:].reshape(len(tokens), *self.grid, -1), (rows, columns))
            copied[name] = nn.Dense(values.shape[-1], name=name)(seen)
        return copied


def mean_patches(patches: Array, place: tuple[int, int]) -> Array:
    """Means over equal rectangles: [N, H, W, D] -> [N, rows, columns, D].

    Raises:
      ValueError: the patches cannot be divided into so many.
    """
    count, height, width, channels = patches.shape
    rows, columns = place
    if height % rows or width % columns:
        raise ValueError(f"{height}x{width} patches cannot be divided into {rows}x{columns}")
    cut = patches.reshape(count, rows, height // rows, columns, width // columns, channels)
    return cut.mean((2, 4))


def unlikeness(copies: Array, values: Array) -> Array:
    """Mean of 1 - cosine of copies and what they copy, both [..., C]: scalar."""
    return 1 - (l2_normalise(copies) * l2_normalise(values)).sum(-1).mean()


def relations(features: Array, taught: Array) -> Array:
    """How far the similarities of features [N, D] are from those of a teacher's [N, C]: scalar.

    For each image the divergence of the softmax of its similarities to all others from that of the teacher.
    """
    own = jnp.eye(len(features), dtype=bool)

    def log_share(unit: Array) -> Array:
        return jax.nn.log_softmax(jnp.where(own, -1e9, unit @ unit.T / TEMPERATURE), axis=1)

    found, wanted = log_share(l2_normalise(features)), log_share(l2_normalise(taught))
    return (jnp.exp(wanted) * jnp.where(own, 0.0, wanted - found)).sum(1).mean()


def loss(copied: Mapping[str, Array], told: Mapping[str, Array], features: Array) -> dict[str, Array]:
    """The terms of learning from one teacher.

    Args:
      copied: what `Copies` makes of its standardised answers.
      told: these answers.
      features: whose similarities are to be like those of the teacher's, [N, D].

    Returns:
      ``feature`` and ``map``, the mean over stages, see `unlikeness`, and `relations`.
    """
    apart = {name: unlikeness(copied[name], values) for name, values in told.items()}
    return {
        "feature": apart["feature"],
        "map": jnp.stack([apart[name] for name in STAGES]).mean(),
        "relations": relations(features, told["feature"]),
    }
