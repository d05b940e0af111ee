"""Records, catalogue, samplers, transforms and the input pipeline."""

from mmreid_jax.data import (
    captions,
    enhancement,
    image_store,
    images,
    listing,
    pipeline,
    records,
    samplers,
    tokenizer,
    transforms,
)

__all__ = [
    "captions",
    "enhancement",
    "image_store",
    "images",
    "listing",
    "pipeline",
    "records",
    "samplers",
    "tokenizer",
    "transforms",
]
