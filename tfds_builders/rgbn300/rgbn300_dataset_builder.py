"""TFDS builder of RGBN300."""

from mmreid_jax.datasets import rgbn300
from mmreid_jax.datasets.builder import ImagesBuilder


class Builder(ImagesBuilder):
    """See `mmreid_jax.datasets.rgbn300`."""

    DATASET = rgbn300.DATASET
