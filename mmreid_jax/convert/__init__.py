"""Foreign weights to our trees and back, with every key accounted for."""

from mmreid_jax.convert import htt, layout, resnet, vit

__all__ = ["htt", "layout", "resnet", "vit"]
