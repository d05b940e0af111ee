"""TFDS builder of RGBNT201-C."""

from mmreid_jax.datasets import rgbnt201_c
from mmreid_jax.datasets.builder import ImagesBuilder


class Builder(ImagesBuilder):
    """See `mmreid_jax.datasets.rgbnt201_c`."""

    DATASET = rgbnt201_c.DATASET
