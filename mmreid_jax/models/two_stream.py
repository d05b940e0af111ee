"""Networks of two modalities that have their first parts apart and their last parts in common."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmreid_jax.errors import UserError
from mmreid_jax.models.resnet import STAGES, ResNet

Array = jax.Array
Dtype = Any

MODALITIES = ("visible", "infrared")
"""Names of the streams that see one modality, in the order of concatenation, whatever the data set calls theirs."""
STREAMS = (*MODALITIES, "shared")
"""Names of the parameters of the parts: of each modality, and of both."""


class TwoStream(nn.Module):
    """A ResNet for two modalities, of which some parts exist twice: images -> feature maps.

    Part 0 of a ResNet is its stem, part i its stage i. Parts before `shared_from` exist once for each modality, as
    streams ``visible`` and ``infrared``; the others once, as ``shared``. A stream that has no part has no parameters.
    Batch norms of a modality's stream see its images alone, shared ones those of both together.

    Reference: figure 2 of Ye et al. 2021 (AGW; own stems, `shared_from` = 1) and of Zhu et al. 2020 (Hetero-Center;
    nothing shared, 5).

    Attributes:
      shared_from: the first shared part, 0 (one network for both) up to the number of parts (two networks).
      stages, width, bottleneck: of the ResNet, an entry of `mmreid_jax.models.resnet.RESNETS`.
      last_stride: stride of the last stage; re-identification uses 1.
      stem: form of the first part, see `mmreid_jax.models.resnet.ResNet`.
      non_local: (stage, block) of the blocks that a non-local block follows; those that the ResNet lacks are left out.
      dtype: type of the computation (None: that of parameters and images); batch statistics stay in float32.
      remat: recompute the blocks in the backward pass.
    """

    shared_from: int = 1
    stages: tuple[int, ...] = STAGES
    width: int = 64
    bottleneck: bool = True
    last_stride: int = 1
    stem: str = "torchvision"
    non_local: tuple[tuple[int, int], ...] = ()
    dtype: Dtype = None
    remat: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.shared_from <= len(self.stages) + 1:
            raise UserError(
                f"config.model.shared_from is {self.shared_from}; it counts the parts of the network that each modality"
                f" has for itself, 0 to {len(self.stages) + 1}"
            )
        super().__post_init__()

    @property
    def features(self) -> int:
        """Channels of the output."""
        return self._network(parent=None).features

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams that exist."""
        separate = MODALITIES if self.shared_from > 0 else ()
        return (*separate, "shared") if self.shared_from <= len(self.stages) else separate

    @property
    def _options(self) -> dict[str, Any]:
        """What all parts of the network have in common."""
        names = ("stages", "width", "bottleneck", "last_stride", "stem", "non_local", "dtype", "remat")
        return {name: getattr(self, name) for name in names}

    def _network(self, **parts: Any) -> ResNet:
        return ResNet(**self._options, **parts)

    @nn.compact
    def __call__(
        self, images: Mapping[str, Array], train: bool, return_stages: bool = False
    ) -> Array | dict[str, Array]:
        """Embeds images of both modalities or of one; `init` needs both.

        Args:
          images: {"visible": [V, H, W, 3], "infrared": [I, H, W, 3]}, normalised, or one of them; V and I are free.
          train: normalise by batch statistics and update the running ones.
          return_stages: return every stage by name instead of the last.

        Returns:
          Feature maps [V + I, h, w, features], the visible ones first; or {stem, maxpool, layer1, ...} of maps.
        """
        present = [name for name in MODALITIES if name in images]
        if not present or len(present) != len(images):
            raise ValueError(f"images are of {sorted(images)}; give those of {' and '.join(MODALITIES)}, or of one")
        join = functools.partial(jnp.concatenate, axis=0) if len(present) == 2 else lambda maps: maps[0]
        maps = [images[name] for name in present]
        stages: dict[str, Array] = {}
        if self.shared_from > 0:
            parts = {"last": self.shared_from - 1}
            streams = [self._stages(x, train, name=name, **parts) for name, x in zip(present, maps, strict=True)]
            stages = {part: join([each[part] for each in streams]) for part in streams[0]}
        x = list(stages.values())[-1] if stages else join(maps)
        if "shared" in self.streams:
            stages.update(self._stages(x, train, first=self.shared_from, name="shared"))
        return stages if return_stages else list(stages.values())[-1]

    def _stages(self, x: Array, train: bool, **parts: Any) -> dict[str, Array]:
        return cast(dict[str, Array], self._network(**parts)(x, train, return_stages=True))
