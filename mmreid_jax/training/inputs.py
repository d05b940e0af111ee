"""From the uint8 batch of the host to the float images of the networks, on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Required, TypedDict, cast

import jax
import jax.numpy as jnp

from mmreid_jax.errors import UserError
from mmreid_jax.training import enhancement

Array = jax.Array


class Batch(TypedDict, total=False):
    """What a network gets to see of B samples.

    The labels are in every batch of training; in one of evaluation only what side information is made of.

    Keys:
      images: modality (or second view, ``rgb_2``) -> float [B, H, W, 3], normalised.
      identity: int [B], class of the sample.
      camera: int [B], from 0.
      scene: int [B], time or scene of the sample.
      tokens: modality -> int32 [B, L], where captions are read.
      index: int [B], row of the sample in its table; only where a method asks for it.
    """

    images: Required[Mapping[str, Array]]
    identity: Array
    camera: Array
    scene: Array
    tokens: Mapping[str, Array]
    index: Array


@dataclasses.dataclass(frozen=True)
class Normalization:
    """How pixels become numbers.

    Attributes:
      mean: per channel of images scaled to 0..1 (HTT: 0.5, as its ImageNet ViT).
      std: standard deviation, likewise.
      erased: what erased rectangles are filled with: ``noise``, ``mean`` for the numbers of `mean`, or three numbers.
        Parity: put in after the normalisation, as torchreid and CAJ do, these are not the colour they look like.
    """

    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    erased: str | tuple[float, ...] = "noise"

    def __post_init__(self) -> None:
        if self.erased not in ("noise", "mean") and (isinstance(self.erased, str) or len(self.erased) != 3):
            raise UserError(
                f"erased rectangles cannot be filled with {self.erased!r}; choose noise or mean, or give three numbers"
            )

    @property
    def fill(self) -> tuple[float, ...] | None:
        """Value of each channel in an erased rectangle; None for noise."""
        if isinstance(self.erased, str):
            return self.mean if self.erased == "mean" else None
        return self.erased


def normalize(images: Array, normalization: Normalization, enhanced: Mapping[str, Array] | None = None) -> Array:
    """uint8 [..., 3] -> float32 (x / 255 - mean) / std; images that are float already pass unchanged.

    Args:
      images: [..., 3], or [B, H, W, 3] where they are enhanced.
      normalization: how.
      enhanced: what happens to x / 255 before, see `mmreid_jax.data.enhancement.draw`; to uint8 images alone.
    """
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images
    scaled = images.astype(jnp.float32) / 255.0
    if enhanced is not None:
        scaled = enhancement.enhance(scaled, enhanced)
    return (scaled - jnp.asarray(normalization.mean, jnp.float32)) / jnp.asarray(normalization.std, jnp.float32)


def erase(images: Array, rectangles: Array, key: Array, fill: Sequence[float] | None = None) -> Array:
    """Random erasing: fills one rectangle per image with standard normal noise, per pixel and channel, or one colour.

    Args:
      images: float [B, H, W, 3], normalised.
      rectangles: int32 [B, 4], top, left, height, width; height 0 erases nothing.
      key: random key of this step and modality.
      fill: value of each channel, None for noise.

    Reference: Zhong et al. 2020, with timm's mode ``pixel``, as HTT uses it after normalisation.
    """
    inside = enhancement.within(rectangles, *images.shape[1:3])[..., None]
    if fill is not None:
        return jnp.where(inside, jnp.asarray(fill, images.dtype), images)
    return jnp.where(inside, jax.random.normal(key, images.shape, images.dtype), images)


def prepare(
    batch: Mapping[str, Any], normalization: Normalization, key: Array | None = None, absent: Sequence[str] = ()
) -> Batch:
    """The batch with float images: enhanced and erased where it says so, normalised, absent modalities set to zero.

    Args:
      batch: see `mmreid_jax.data.pipeline`.
      normalization: of the images.
      key: random key of the step; needed where the batch holds ``erase``.
      absent: modalities to replace by zeros (missing-modality evaluation).
    """
    rectangles, enhanced = batch.get("erase"), batch.get("enhance", {})
    images = {}
    for position, (modality, pixels) in enumerate(batch["images"].items()):
        image = normalize(pixels, normalization, enhanced.get(modality))
        if modality in absent:
            image = jnp.zeros_like(image)
        elif rectangles is not None:
            if key is None:
                raise ValueError("a batch with rectangles to erase needs a random key")
            image = erase(image, rectangles[modality], jax.random.fold_in(key, position), normalization.fill)
        images[modality] = image
    kept = {name: value for name, value in batch.items() if name not in ("erase", "enhance")}
    return cast(Batch, {**kept, "images": images})
