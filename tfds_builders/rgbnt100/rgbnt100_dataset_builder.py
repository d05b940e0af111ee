"""TFDS builder of RGBNT100."""

from mmreid_jax.datasets import rgbnt100
from mmreid_jax.datasets.builder import ImagesBuilder


class Builder(ImagesBuilder):
    """See `mmreid_jax.datasets.rgbnt100`."""

    DATASET = rgbnt100.DATASET
