"""Records, catalogue, samplers, transforms and the input pipeline."""

from mmreid_jax.data import (
    captions,
    enhancement,
    images,
    listing,
    pipeline,
    records,
    samplers,
    store,
    tokenizer,
    transforms,
)

__all__ = [
    "captions",
    "enhancement",
    "images",
    "listing",
    "pipeline",
    "records",
    "samplers",
    "store",
    "tokenizer",
    "transforms",
]
