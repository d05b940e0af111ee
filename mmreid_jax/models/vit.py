"""The Vision Transformer of TransReID, as HTT uses it: pre-norm blocks, class-token feature, optional side information.

CLIP's image towers are of the same kind with a few differences (`ViTSize.clip`); its text towers
(`mmreid_jax.models.clip`) are made of the same blocks.

Reference: Dosovitskiy et al. 2021 (ViT); He et al. 2021 (TransReID: overlapping patches, side information embedding);
file ``model/backbones/vit_pytorch.py`` of HTT; Radford et al. 2021 (CLIP), file ``clip/model.py`` of OpenAI's code.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmreid_jax.errors import UserError
from mmreid_jax.models.layers import (
    attention,
    attention_weights,
    drop_path_multipliers,
    drop_path_rates,
    gelu,
    join_heads,
    project,
    project_dense,
    quick_gelu,
    split_heads,
)

Array = jax.Array
Dtype = Any


@dataclasses.dataclass(frozen=True)
class ViTSize:
    """Widths of one variant.

    Attributes:
      width: of the tokens.
      depth: number of blocks.
      heads: of the attention.
      mlp_ratio: width of the hidden layer of a block over that of the tokens.
      qkv_bias: the joint projection of queries, keys and values has a bias.
      scale: factor on the attention scores; None: head width ** -0.5.
      patch: side of a patch, in pixels.
      clip: CLIP's form: patches without bias, a layer norm before the first block, the quick GELU, 1e-5 under the roots
        of layer norms, and its initialisation.
      out: width of the projection of the tokens that come out; 0: they are not projected.
    """

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    scale: float | None = None
    patch: int = 16
    clip: bool = False
    out: int = 0

    def deviation(self, layer: str) -> float:
        """Standard deviation of the initial kernel of a linear layer of the blocks, by its name."""
        if not self.clip:
            return 0.02
        inward = self.width**-0.5
        outward = inward * (2 * self.depth) ** -0.5
        return {"qkv": inward, "proj": outward, "fc1": (2 * self.width) ** -0.5, "fc2": outward}[layer]


SIZES: dict[str, ViTSize] = {
    "vit_base": ViTSize(768, 12, 12),
    # HTT's "small" is wide and shallow, without qkv bias, and scales by the whole width.
    "vit_small": ViTSize(768, 8, 8, mlp_ratio=3.0, qkv_bias=False, scale=768**-0.5),
    "deit_small": ViTSize(384, 12, 6),
    "deit_tiny": ViTSize(192, 12, 3),
    # For drawn data, laptops and tests: 8-pixel patches of small images.
    "vit_mini": ViTSize(96, 4, 4, mlp_ratio=2.0, patch=8),
    "vit_micro": ViTSize(32, 2, 2, patch=8),
    # CLIP's image towers: the class token itself, and as CLIP compares it with texts.
    "clip_vit_b16": ViTSize(768, 12, 12, clip=True),
    "clip_vit_b16_projected": ViTSize(768, 12, 12, clip=True, out=512),
    "clip_vit_micro": ViTSize(32, 2, 2, patch=8, clip=True, out=16),
}


def patch_grid(image_size: tuple[int, int], patch: int, stride: int) -> tuple[int, int]:
    """Number of patches (rows, columns) of an image (height, width).

    Raises:
      UserError: the image is smaller than a patch.
    """
    if min(image_size) < patch:
        height, width = image_size
        raise UserError(
            f"images of {height} x {width} pixels hold no patch of {patch} x {patch}; choose larger ones with"
            " config.data.image_size"
        )
    return (image_size[0] - patch) // stride + 1, (image_size[1] - patch) // stride + 1


def side_information_rows(cameras: int, views: int) -> int:
    """Rows of the side-information table; 0 (no table) where neither count exceeds one (HTT's rule)."""
    rows = (cameras if cameras > 1 else 1) * (views if views > 1 else 1)
    return rows if rows > 1 else 0


def _dense(size: ViTSize, features: int, name: str, dtype: Dtype, use_bias: bool = True) -> nn.Dense:
    return nn.Dense(
        features,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=nn.initializers.normal(size.deviation(name)),
        dot_general=project_dense,
        name=name,
    )


def layer_norm(size: ViTSize, name: str, dtype: Dtype) -> nn.LayerNorm:
    """The layer norm of a variant."""
    return nn.LayerNorm(epsilon=1e-5 if size.clip else 1e-6, use_fast_variance=False, dtype=dtype, name=name)


class PatchEmbed(nn.Module):
    """Square patches of an image as tokens: a convolution, with bias but in CLIP's form.

    Patches that do not overlap are computed as a matrix product, which XLA runs faster on a CPU.
    """

    size: ViTSize
    stride: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """[B, H, W, 3] -> [B, patches, D], row by row."""
        patch, width = self.size.patch, self.size.width
        initial = nn.initializers.normal((2.0 / (patch * patch * width)) ** 0.5)
        kernel = self.param("kernel", initial, (patch, patch, images.shape[-1], width))
        bias = 0.0 if self.size.clip else self.param("bias", nn.initializers.zeros, (width,))
        images, kernel, bias = nn.dtypes.promote_dtype(images, kernel, bias, dtype=self.dtype)
        if self.stride != patch:
            steps, layout = (self.stride, self.stride), ("NHWC", "HWIO", "NHWC")
            maps = jax.lax.conv_general_dilated(images, kernel, steps, "VALID", dimension_numbers=layout)
            return maps.reshape(maps.shape[0], -1, width) + bias
        rows, columns = patch_grid((images.shape[1], images.shape[2]), patch, patch)
        cut = images[:, : rows * patch, : columns * patch]
        cut = cut.reshape(-1, rows, patch, columns, patch, images.shape[-1]).transpose(0, 1, 3, 2, 4, 5)
        return project(cut.reshape(images.shape[0], rows * columns, -1), kernel.reshape(-1, width)) + bias


class Attention(nn.Module):
    """Multi-head self-attention; the joint projection holds [q | k | v], each cut into heads.

    With `causal` a token sees itself and those before it.
    """

    size: ViTSize
    dtype: Dtype = None
    implementation: Any = "plain"
    return_weights: bool = False
    causal: bool = False

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array | None]:
        """[B, N, D] -> ([B, N, D], attention weights [B, heads, N, N] or None)."""
        batch, tokens, width = x.shape
        heads = self.size.heads
        qkv = _dense(self.size, 3 * width, "qkv", self.dtype, self.size.qkv_bias)(x)
        scale = self.size.scale if self.size.scale is not None else (width // heads) ** -0.5
        weights = None
        if self.return_weights:
            q, k, v = split_heads(qkv, heads)
            weights = attention_weights(q, k, scale, self.causal)
            out = join_heads(jnp.einsum("bhqk,bhkd->bhqd", weights.astype(v.dtype), v))
        elif self.implementation == "plain":
            # jax.nn.dot_product_attention rounds its softmax to float32 whatever the type of its arguments.
            out = attention(qkv, heads, scale, self.causal)
        else:
            q, k, v = jnp.moveaxis(qkv.reshape(batch, tokens, 3, heads, width // heads), 2, 0)
            form = {"scale": scale, "is_causal": self.causal, "implementation": self.implementation}
            out = jax.nn.dot_product_attention(q, k, v, **form)
            out = out.reshape(batch, tokens, width)
        projected = _dense(self.size, width, "proj", self.dtype)(out)
        return projected, weights


class MLP(nn.Module):
    """Two dense layers with the exact (erf) GELU between them, or CLIP's quick one."""

    size: ViTSize
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, N, D] -> [B, N, D]."""
        activation = quick_gelu if self.size.clip else gelu
        width = int(self.size.width * self.size.mlp_ratio)
        hidden = activation(_dense(self.size, width, "fc1", self.dtype)(x))
        return _dense(self.size, x.shape[-1], "fc2", self.dtype)(hidden)


class Block(nn.Module):
    """Pre-norm transformer block with stochastic depth given from outside; a body for `flax.linen.scan`."""

    size: ViTSize
    dtype: Dtype = None
    implementation: Any = "plain"
    return_weights: bool = False
    causal: bool = False

    @nn.compact
    def __call__(self, x: Array, keep: Array | None) -> tuple[Array, Array | None]:
        """Tokens [B, N, D] and branch multipliers `keep` [2, B] (None: all ones) -> (tokens, attention weights)."""
        attend = Attention(self.size, self.dtype, self.implementation, self.return_weights, self.causal, name="attn")
        branch, weights = attend(layer_norm(self.size, "norm1", self.dtype)(x))
        x = x + (branch if keep is None else branch * keep[0, :, None, None].astype(branch.dtype))
        branch = MLP(self.size, self.dtype, name="mlp")(layer_norm(self.size, "norm2", self.dtype)(x))
        x = x + (branch if keep is None else branch * keep[1, :, None, None].astype(branch.dtype))
        return x, weights


def blocks(
    size: ViTSize,
    dtype: Dtype = None,
    *,
    implementation: Any = "plain",
    remat: bool = False,
    unroll: int = 1,
    causal: bool = False,
    return_weights: bool = False,
    drop_path: bool = False,
) -> Any:
    """The blocks of a variant, for use inside of a module: their parameters are stacked on a leading axis.

    Args:
      size: of the variant.
      dtype, implementation, remat, unroll: as in `VisionTransformer`.
      causal: tokens see themselves and those before them.
      return_weights: also return attention weights.
      drop_path: the multipliers given have one row for each block.

    Returns:
      Module of (tokens [B, N, D], multipliers [depth, 2, B] or None) -> (tokens, weights [depth, B, heads, N, N] or
      None).
    """
    # prevent_cse is only needed outside of scan.
    block = nn.remat(Block, prevent_cse=False) if remat and not return_weights else Block
    scanned = nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        length=size.depth,
        in_axes=0 if drop_path else nn.broadcast,
        unroll=unroll,
    )
    return scanned(size, dtype, implementation, return_weights, causal, name="blocks")


class VisionTransformer(nn.Module):
    """Images -> class-token features, or those of all tokens, projected where the size says so.

    Attributes:
      size: a row of `SIZES`, or one's own.
      image_size: height, width in pixels.
      stride: distance of patches; smaller than the patch size they overlap (TransReID).
      drop_path: rate of stochastic depth of the last block; the others grow linearly from 0.
      side_rows: rows of the side-information table (`side_information_rows`); 0: none.
      side_weight: factor on the side information (``SIE_COE``).
      side_on_class: side information is that of the first class token alone; else of every token, as in TransReID.
      class_tokens: how many class tokens there are. They are one and the same parameter, which their rows of the
        position table alone tell apart, as in MDReID.
      all_tokens: the patches' tokens come out as well.
      dtype: type of the computation (None: that of parameters and images). Softmax and layer norms stay in float32.
      remat: recompute the blocks in the backward pass: a fifth of the memory for about 10 % more time.
      implementation: of the attention: "plain" (einsums and softmax, as exact as the type), or that of
        `jax.nn.dot_product_attention`: None (chosen by JAX), "xla" or "cudnn" (flash attention, 16-bit types on a GPU).
      unroll: number of blocks per step of the scan over depth.
    """

    size: ViTSize
    image_size: tuple[int, int]
    stride: int | None = None
    drop_path: float = 0.0
    side_rows: int = 0
    side_weight: float = 3.0
    dtype: Dtype = None
    remat: bool = False
    implementation: Any = "plain"
    unroll: int = 1
    side_on_class: bool = False
    class_tokens: int = 1
    all_tokens: bool = False

    @property
    def features(self) -> int:
        """Width of the features."""
        return self.size.out or self.size.width

    @property
    def grid(self) -> tuple[int, int]:
        """Patch rows and columns."""
        return patch_grid(self.image_size, self.size.patch, self.stride or self.size.patch)

    def draw_drop_path(self, key: Array, samples: int) -> Array | None:
        """Multipliers [depth, 2, samples] for `__call__`, or None where stochastic depth is off."""
        if self.drop_path == 0:
            return None
        return drop_path_multipliers(key, drop_path_rates(self.drop_path, self.size.depth), samples)

    @nn.compact
    def __call__(
        self, images: Array, side: Array | None = None, keep: Array | None = None, return_attention: bool = False
    ) -> Array | tuple[Array, Array]:
        """Embeds images.

        Args:
          images: float [B, H, W, 3], normalised.
          side: int32 [B], row of the side-information table; needed when `side_rows` > 0.
          keep: stochastic-depth multipliers [depth, 2, B] of `draw_drop_path`; None in evaluation.
          return_attention: also return the attention weights.

        Returns:
          Features [B, D]; with several class tokens [B, class_tokens, D]; of all tokens [B, N, D], class tokens first.
          D is the width or `size.out`, N is class_tokens + patches. With `return_attention` also the weights
          [depth, B, heads, N, N].
        """
        size = self.size
        stride = self.stride or size.patch
        rows, columns = self.grid
        x = PatchEmbed(size, stride, self.dtype, name="patch_embed")(images)
        cls = self.param("cls_token", nn.initializers.normal(0.02), (1, 1, size.width))
        tokens = self.class_tokens + rows * columns
        position = self.param("pos_embed", nn.initializers.normal(0.02), (1, tokens, size.width))
        first = jnp.broadcast_to(cls.astype(x.dtype), (x.shape[0], self.class_tokens, size.width))
        x = jnp.concatenate([first, x], axis=1)
        x = x + position.astype(x.dtype)
        if self.side_rows:
            table = self.param("sie_embed", nn.initializers.normal(0.02), (self.side_rows, 1, size.width))
            if side is None:
                raise ValueError("this network has a side-information table: pass the camera / view row of each image")
            added = self.side_weight * table[side].astype(x.dtype)
            x = jnp.concatenate([x[:, :1] + added, x[:, 1:]], axis=1) if self.side_on_class else x + added
        if size.clip:
            x = layer_norm(size, "norm_pre", self.dtype)(x)
        network = blocks(
            size,
            self.dtype,
            implementation=self.implementation,
            remat=self.remat,
            unroll=self.unroll,
            return_weights=return_attention,
            drop_path=keep is not None,
        )
        x, weights = network(x, keep)
        single = self.class_tokens == 1 and not self.all_tokens
        chosen = x[:, 0] if single else x if self.all_tokens else x[:, : self.class_tokens]
        feature: Any = layer_norm(size, "norm", self.dtype)(chosen)
        if size.out:
            kernel = self.param("proj", nn.initializers.normal(size.width**-0.5), (size.width, size.out))
            feature = project(*nn.dtypes.promote_dtype(feature, kernel, dtype=self.dtype))
        return (feature, weights) if return_attention else feature
