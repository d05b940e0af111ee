"""The non-local block of AGW: every position of a map takes something from all of them."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmreid_jax.models.layers import Linear, TorchBatchNorm

Array = jax.Array


class NonLocal(nn.Module):
    """``x + BN(W y)`` with ``y = (theta phi^T / M) g`` over the M positions of one image.

    The similarity is divided by the number of positions, without a softmax, so the products associate:
    ``theta (phi^T g / M)`` takes M * width^2 operations where the matrix of all pairs would take M^2 * width.
    The scale of the normalisation starts at zero and the block as the identity.

    Reference: Wang et al. 2018 (Non-local Neural Networks), the dot-product form; class ``Non_local`` of AGW.

    Attributes:
      width: channels of theta, phi and g. Parity: 1 in the released code, which divides the reduction by itself; the
        paper's figure suggests more.
      groups: batches stacked on the leading axis, each with its own batch statistics (`TorchBatchNorm`).
    """

    width: int = 1
    groups: int = 1

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[groups * B, H, W, C] -> the same shape and type; the block itself computes in at least float32."""
        batch, height, wide, channels = x.shape
        positions = x.astype(jnp.promote_types(x.dtype, jnp.float32)).reshape(batch, height * wide, channels)
        theta, phi, g = (Linear(self.width, name=name)(positions) for name in ("theta", "phi", "g"))
        y = theta @ (jnp.swapaxes(phi, 1, 2) @ g / (height * wide))
        y = Linear(channels, name="expand")(y).reshape(x.shape)
        norm = TorchBatchNorm(groups=self.groups, scale_init=nn.initializers.zeros, name="norm")
        return x + norm(y, train).astype(x.dtype)
