"""DeMo."""

from ml_collections import ConfigDict

from configs.systems import clip_trunk


def demo_moe() -> ConfigDict:
    """DeMo on RGBNT201 as released; the other experiments change what differs."""
    config = clip_trunk.clip_trunk()
    config.method = "demo_moe"
    with config.model.unlocked():
        # A modality's feature is made of class token and mean patch (PIFE); False: the class token.
        config.model.global_local = True
        # "experts": seven learned queries and their experts; "queries": without the experts; "none": the features of
        # the modalities alone.
        config.model.fusion = "experts"
        config.model.heads = 4  # of every feature, each with an expert
        config.model.dropout = 0.1  # of the queries' attention weights
        config.model.joint_head = True  # False: a head for the feature of each modality
    return config
