"""TFDS builder of MSVR310."""

from mmreid_jax.datasets import msvr310
from mmreid_jax.datasets.builder import ImagesBuilder


class Builder(ImagesBuilder):
    """See `mmreid_jax.datasets.msvr310`."""

    DATASET = msvr310.DATASET
