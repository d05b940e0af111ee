"""Records, catalogue, samplers, transforms and the input pipeline."""

from mmreid_jax.data import (
    captions,
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
    "images",
    "listing",
    "pipeline",
    "records",
    "samplers",
    "store",
    "tokenizer",
    "transforms",
]
