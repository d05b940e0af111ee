"""TFDS builder of LLCM."""

from mmreid_jax.datasets import llcm
from mmreid_jax.datasets.builder import ImagesBuilder


class Builder(ImagesBuilder):
    """See `mmreid_jax.datasets.llcm`."""

    DATASET = llcm.DATASET
