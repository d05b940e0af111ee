"""RLE's two random linear enhancements of training images: what happens to an image, drawn on the host.

A camera of another spectrum sees a surface brighter or darker by a factor; training images are changed in this way, as
a whole (moderate) or by rectangles and channels (radical). What is drawn here is done on the device, before the
normalisation (`mmreid_jax.training.enhancement`), because how far the radical one goes depends on the pixels.

Reference: Tan et al., RLE: A Unified Perspective of Data Augmentation for Cross-Spectral Re-identification, NeurIPS
2024; the authors' code.
"""

from __future__ import annotations

import numpy as np

MODERATE_BETA, RADICAL_BETA = 0.3, 0.4
"""Both parameters of the symmetric beta distributions."""
AREA, ASPECT = (0.02, 0.4), (0.3, 1 / 0.3)
"""Shares of the image and ratios height : width of rectangles, drawn uniformly."""
ATTEMPTS = 32
"""At a rectangle. The authors' code makes up to a hundred, but an image gets two on average and goes on after each of
them in half of all cases: one in millions gets more than thirty."""
NUMBERS = 1 + 3 + 1 + 7 * ATTEMPTS
"""Random numbers of an image: whether to make it grey, with which weights; whether to scale rectangles, and of each
share, aspect, top, left and a factor for each channel."""


def draw(numbers: np.ndarray, size: tuple[int, int], moderate: float, radical: float) -> dict[str, np.ndarray]:
    """What happens to images.

    Args:
      numbers: [..., NUMBERS] in [0, 1).
      size: (H, W) of the images.
      moderate: probability of a weighted grey.
      radical: probability of scaled rectangles.

    Returns:
      ``weights`` float32 [..., 3] of the channels in the grey, 0 where the image keeps its colours; ``rectangles``
      int32 [..., ATTEMPTS, 4] of top, left, height and width, height 0 for none; ``factors`` float32 [..., ATTEMPTS,
      3]. What has no probability is left out.
    """
    drawn: dict[str, np.ndarray] = {}
    if moderate:
        chosen = numbers[..., 0] <= moderate
        betas = np.zeros((*chosen.shape, 3))
        betas[chosen] = beta(numbers[..., 1:4][chosen], MODERATE_BETA)
        drawn["weights"] = grey_weights(betas)
    if radical:
        chosen = numbers[..., 4] <= radical
        attempts = numbers[..., 5:].reshape(*chosen.shape, ATTEMPTS, 7)
        rectangles = place(attempts, size) * chosen[..., None, None]
        factors = np.ones((*chosen.shape, ATTEMPTS, 3))
        there = rectangles[..., 2] > 0
        factors[there] = beta(attempts[..., 4:][there], RADICAL_BETA)
        drawn |= {"rectangles": rectangles.astype(np.int32), "factors": factors.astype(np.float32)}
    return drawn


def beta(numbers: np.ndarray, parameter: float) -> np.ndarray:
    """Uniform numbers in [0, 1) as draws of the beta distribution with both parameters the same."""
    # Of SciPy, which JAX needs itself; it takes a while to import, and few experiments do.
    from scipy.special import betaincinv

    drawn: np.ndarray = betaincinv(parameter, parameter, numbers)
    return drawn


def grey_weights(betas: np.ndarray) -> np.ndarray:
    """Weights of red, green and blue that sum to one, float32 [..., 3]; zeros stay zeros."""
    total = betas.sum(axis=-1, keepdims=True)
    return np.divide(betas, total, out=np.zeros_like(betas), where=total > 0).astype(np.float32)


def place(attempts: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Rectangles int64 [..., 4] (top, left, height, width) of uniform numbers [..., 4 or more]; zeros: none fits."""
    share = AREA[0] + (AREA[1] - AREA[0]) * attempts[..., 0]
    aspect = ASPECT[0] + (ASPECT[1] - ASPECT[0]) * attempts[..., 1]
    h, w = sides(share, aspect, size)
    top, left = (
        (attempts[..., 2 + axis] * (size[axis] - side + 1)).astype(np.int64) for axis, side in enumerate((h, w))
    )
    return np.stack([top, left, h, w], axis=-1) * fits(h, w, size)[..., None]


def sides(share: np.ndarray, aspect: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Height and width in pixels, int64, of rectangles of a share of the image and a ratio height : width."""
    pixels = share * (size[0] * size[1])
    return np.rint(np.sqrt(pixels * aspect)).astype(np.int64), np.rint(np.sqrt(pixels / aspect)).astype(np.int64)


def fits(height: np.ndarray, width: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Whether rectangles are smaller than the image on both sides."""
    return (height < size[0]) & (width < size[1])
