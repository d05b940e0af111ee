"""TFDS builder of Market1501-MM."""

from mmreid_jax.datasets import market1501_mm
from mmreid_jax.datasets.builder import ImagesBuilder


class Builder(ImagesBuilder):
    """See `mmreid_jax.datasets.market1501_mm`."""

    DATASET = market1501_mm.DATASET
