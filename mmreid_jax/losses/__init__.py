"""Pure loss functions: arrays in, scalar out."""

from mmreid_jax.losses import (
    adaptation,
    centers,
    cycle_contrast,
    decoupling,
    distillation,
    expansion,
    identity,
    margins,
    permutation,
    text,
    triplet,
    vectors,
    weighted_triplet,
)

__all__ = [
    "adaptation",
    "centers",
    "cycle_contrast",
    "decoupling",
    "distillation",
    "expansion",
    "identity",
    "margins",
    "permutation",
    "text",
    "triplet",
    "vectors",
    "weighted_triplet",
]
