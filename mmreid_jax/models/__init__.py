"""Networks only: they know no loss, no data set and no config."""

from mmreid_jax.models import (
    clip,
    deen,
    demo_moe,
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
    "demo_moe",
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
