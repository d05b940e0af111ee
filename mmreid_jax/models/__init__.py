"""Networks only: they know no loss, no data set and no config."""

from mmreid_jax.models import (
    clip,
    deen,
    graph,
    heads,
    ieee,
    layers,
    non_local,
    resnet,
    stripes,
    strips,
    two_stream,
    vit,
    weighted_parts,
)

__all__ = [
    "clip",
    "deen",
    "graph",
    "heads",
    "ieee",
    "layers",
    "non_local",
    "resnet",
    "stripes",
    "strips",
    "two_stream",
    "vit",
    "weighted_parts",
]
