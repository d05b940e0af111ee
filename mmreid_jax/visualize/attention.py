"""What a transformer looks at: attention rollout, laid over the images.

The picture and the page show any sample that has panels (`MapExample`); the activation maps of CNNs
(`mmreid_jax.visualize.activation`) are drawn by the same code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol as Interface

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.visualize import style
from mmreid_jax.visualize.canvas import Canvas
from mmreid_jax.visualize.images import as_uint8, cell_size, fit


def rollout(attention: np.ndarray, *, heads: str = "mean", discard: float = 0.0) -> np.ndarray:
    """Follows attention through all layers: how much of each input token is in each output token.

    With A_l the attention of layer l after fusing its heads, and I the residual connection, the rollout is
    R = B_L ... B_2 B_1 with B_l = (A_l + I) / 2, each row scaled to sum to one.

    Args:
      attention: float [..., L, heads, T, T], softmax outputs of L layers, T tokens; row = the token that attends.
      heads: how the heads of a layer are fused, ``mean`` (the paper) or ``max`` (sharper maps).
      discard: share of the weakest fused attentions of each layer that is set to zero before the residual is added, in
        [0, 1); it removes the haze that many tiny weights add up to. The class token's attention to itself is always
        kept.

    Returns:
      float [..., T, T], rows summing to one.

    Raises:
      UserError: another shape, an unknown fusion, or a share outside [0, 1).

    Reference: Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020, equation 1. The maximum over
    heads and the discarding are common practice for vision transformers and not in the paper.
    """
    array = np.asarray(attention)
    if array.ndim < 4 or array.shape[-1] != array.shape[-2] or 0 in array.shape:
        raise UserError(
            f"attention must be [..., layers, heads, tokens, tokens], but its shape is {list(array.shape)}."
        )
    if heads not in ("mean", "max"):
        raise UserError(f"attention heads can be fused by 'mean' or 'max', not by {heads!r}.")
    if not 0 <= discard < 1:
        raise UserError(f"the share of attention to discard is {discard}, but must be at least 0 and below 1.")
    array = array.astype(np.result_type(array.dtype, np.float32), copy=False)
    fused = array.mean(axis=-3) if heads == "mean" else array.max(axis=-3)
    fused = _without_weakest(fused, discard)
    tokens = fused.shape[-1]
    flow = fused + np.eye(tokens, dtype=fused.dtype)
    flow = flow / flow.sum(axis=-1, keepdims=True)
    rolled = flow[..., 0, :, :]
    for layer in range(1, flow.shape[-3]):
        rolled = flow[..., layer, :, :] @ rolled
    return rolled


def _without_weakest(fused: np.ndarray, share: float) -> np.ndarray:
    """Each [T, T] with the given share of its smallest entries set to zero; of equal entries the first ones go."""
    size = fused.shape[-1] ** 2
    count = int(share * size)
    if not count:
        return fused
    flat = fused.reshape(*fused.shape[:-2], size).copy()
    order = np.argsort(flat, axis=-1, kind="stable")[..., :count]
    to_itself = flat[..., :1].copy()
    np.put_along_axis(flat, order, 0, axis=-1)
    flat[..., :1] = to_itself
    return flat.reshape(fused.shape)


def class_token_map(rolled: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """What the class token (token 0) takes from each patch, on the patch grid.

    Args:
      rolled: float [..., 1 + n_y * n_x, 1 + n_y * n_x] from `rollout`; patches in row-major order.
      grid: (n_y, n_x).

    Returns:
      float [..., n_y, n_x].

    Raises:
      UserError: the number of tokens does not fit the grid.
    """
    if rolled.shape[-1] != 1 + grid[0] * grid[1]:
        raise UserError(
            f"{rolled.shape[-1]} tokens are not one class token and a grid of {grid[0]} x {grid[1]} patches; "
            "give the grid of the model's patch embedding."
        )
    return rolled[..., 0, 1:].reshape(*rolled.shape[:-2], *grid)


def upsample(heat: np.ndarray, height: int, width: int) -> np.ndarray:
    """The map [h, w] at [height, width], bilinear with pixel centres aligned; float32.

    A map larger than that is averaged down.
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(heat, dtype=np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def overlay(image: np.ndarray, heat: np.ndarray, *, strength: float = 0.75, colors: str = "inferno") -> np.ndarray:
    """Lays a map over its image: the hotter, the more colour; cold places show the image, dimmed and without colour.

    The map is stretched so that its lowest value is cold and its highest hot; a map without contrast is cold
    everywhere.

    Args:
      image: uint8 [H, W, 3].
      heat: float [h, w] on any grid.
      strength: share of colour in the hottest place, in [0, 1].
      colors: name of a matplotlib colour map.

    Returns:
      uint8 [H, W, 3].

    Raises:
      UserError: the image is not uint8 [H, W, 3], or the map is not a finite [h, w].
    """
    matplotlib = style.load_matplotlib()
    photo = as_uint8(image, "attention overlay").astype(np.float32) / 255
    values = np.asarray(heat, np.float32)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise UserError(f"a heat map must be finite numbers [h, w], but this one has shape {list(values.shape)}.")
    large = upsample(values, *photo.shape[:2])
    spread = float(values.max() - values.min())
    # Interpolation of a constant map leaves rounding noise, which must not be stretched to full contrast.
    flat = spread <= 1e-6 * max(float(np.abs(values).max()), 1e-30)
    warmth = np.zeros_like(large) if flat else np.clip((large - values.min()) / spread, 0, 1)
    color = matplotlib.colormaps[colors](warmth)[..., :3]
    grey = 0.75 * photo.mean(axis=-1, keepdims=True)
    share = strength * warmth[..., None]
    return np.round(255 * ((1 - share) * grey + share * color)).astype(np.uint8)


class MapExample(Interface):
    """One sample with panels in each modality, the image first."""

    @property
    def label(self) -> str:
        """What is printed beside it, such as ``identity 258, camera 1``."""

    @property
    def gap(self) -> int:
        """Pixels between the panels of a modality."""

    @property
    def words(self) -> tuple[str, ...]:
        """What each panel of a modality shows."""

    def panels(self) -> Mapping[str, tuple[np.ndarray | None, ...]]:
        """Modality -> its panels, uint8 [H, W, 3], or None where there is nothing to show."""


@dataclasses.dataclass(frozen=True)
class AttentionExample:
    """One sample with a map in each modality.

    Attributes:
      images: modality -> uint8 [H, W, 3].
      maps: modality -> float [h, w]; a modality without a map is shown as the plain image alone.
      label: what is printed beside it, such as ``identity 258, camera 1``.
    """

    images: Mapping[str, np.ndarray]
    maps: Mapping[str, np.ndarray]
    label: str = ""

    @property
    def gap(self) -> int:
        """Pixels between the panels of a modality."""
        return 4

    @property
    def words(self) -> tuple[str, ...]:
        """What each panel shows."""
        return "image", "image under its map"

    def panels(self) -> dict[str, tuple[np.ndarray | None, ...]]:
        """Modality -> image and image under its map (None where there is no map), both uint8 [H, W, 3]."""
        plain = {name: as_uint8(image, f"{self.label} {name}") for name, image in self.images.items()}
        maps = self.maps
        return {name: (image, overlay(image, maps[name]) if name in maps else None) for name, image in plain.items()}


_MARGIN, _BETWEEN = 24, 26  # pixels: page margin, between modalities
_LABEL, _AFTER = 38, 22  # pixels: text above a row, room after it


def attention_picture(
    examples: Sequence[AttentionExample], *, name: str = "attention", title: str = "", caption: str = ""
) -> style.Picture:
    """Draws examples in rows and modalities in columns, each as the image beside the image under its map.

    Args:
      examples: at least one.
      name: stem of the file name.
      title: heading of the picture.
      caption: sentence printed under it on a page.

    Raises:
      UserError: there is no example to draw, or an image or a map has the wrong shape.
    """
    if not examples:
        raise UserError("there is no attention map to draw; give at least one example.")
    return maps_picture(examples, "Attention maps", name=name, title=title, caption=caption)


def maps_picture(examples: Sequence[MapExample], what: str, *, name: str, title: str, caption: str) -> style.Picture:
    """Draws examples in rows and modalities in columns, the panels of a modality side by side.

    Args:
      examples: at least one.
      what: what is drawn, for the alternative text.
      name, title, caption: see `attention_picture`.

    Raises:
      UserError: an image or a map has the wrong shape.
    """
    rows = [example.panels() for example in examples]
    modalities = list(dict.fromkeys(key for panels in rows for key in panels))
    images = [panels[0] for row in rows for panels in row.values() if panels[0] is not None]
    height, width = cell_size(images, 208 * 104, 256)
    head = _MARGIN + (36 if title else 0)
    gap, count = examples[0].gap, max(len(panels) for row in rows for panels in row.values())
    step = (height + _LABEL + _AFTER, count * (width + gap) - gap + _BETWEEN)
    # At least as wide as a heading needs.
    size = (head + len(rows) * step[0] + _MARGIN, max(2 * _MARGIN + len(modalities) * step[1] - _BETWEEN, 420))
    canvas = Canvas(*size)
    for row, of_modality in enumerate(rows):
        for column, key in enumerate(modalities):
            top, left = head + row * step[0] + _LABEL, _MARGIN + column * step[1]
            for place, image in enumerate(of_modality.get(key, ())):
                x = left + place * (width + gap)
                canvas.pixels[top : top + height, x : x + width] = 240 if image is None else fit(image, height, width)

    if title:
        canvas.write(_MARGIN, _MARGIN - 4, title, ha="left", fontsize=14, weight="bold")
    for row, example in enumerate(examples):
        y = head + row * step[0]
        canvas.write(_MARGIN, y, example.label, ha="left", fontsize=9.5, weight="bold")
        for column, key in enumerate(modalities):
            x = _MARGIN + column * step[1]
            canvas.write(x, y + 19, key.upper(), ha="left", fontsize=8.5, color=style.LIGHT.muted)
    alt = f"{what} of {len(examples)} samples in {', '.join(modalities)}, each beside its image."
    return canvas.picture(name=name, alt=alt, caption=caption)
