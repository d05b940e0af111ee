"""TFDS builder of SYSU-MM01."""

from mmreid_jax.datasets import sysu_mm01
from mmreid_jax.datasets.builder import ImagesBuilder


class Builder(ImagesBuilder):
    """See `mmreid_jax.datasets.sysu_mm01`."""

    DATASET = sysu_mm01.DATASET
