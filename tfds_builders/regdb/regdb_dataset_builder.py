"""TFDS builder of RegDB."""

from mmreid_jax.datasets import regdb
from mmreid_jax.datasets.builder import ImagesBuilder


class Builder(ImagesBuilder):
    """See `mmreid_jax.datasets.regdb`."""

    DATASET = regdb.DATASET
