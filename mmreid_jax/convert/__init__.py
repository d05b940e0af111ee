"""Foreign weights to our trees and back, with every key accounted for."""

from mmreid_jax.convert import htt, layout, resnet, vit
from mmreid_jax.convert.store import open_weights

__all__ = ["htt", "layout", "open_weights", "resnet", "vit"]
