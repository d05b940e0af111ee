"""TFDS builder of RGBNT201."""

from mmreid_jax.datasets import rgbnt201
from mmreid_jax.datasets.builder import ImagesBuilder


class Builder(ImagesBuilder):
    """See `mmreid_jax.datasets.rgbnt201`."""

    DATASET = rgbnt201.DATASET
