"""Records, catalogue, samplers, transforms and the input pipeline."""

from mmreid_jax.data import (
    captions,
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
    "image_store",
    "images",
    "listing",
    "pipeline",
    "records",
    "samplers",
    "tokenizer",
    "transforms",
]
