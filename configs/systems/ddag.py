"""DDAG."""

from ml_collections import ConfigDict

from configs.systems import agw


def ddag() -> ConfigDict:
    """DDAG on SYSU-MM01 as MMGL's copy of the code sets it; the other experiments change what differs."""
    config = agw.base()
    config.method = "ddag"
    with config.model.unlocked():
        config.model.wpa = True  # intra-modality weighted-part attention
        config.model.parts = 3
        config.model.graph = True  # cross-modality graph attention, in training
        config.model.graph_heads = 4
        config.model.graph_dim = 512  # of each head
        config.model.dropout = 0.2  # inside the graph attention
    with config.loss.unlocked():
        config.loss.part_weight = 1.0  # of the cross-entropy of the part-refined feature
        # Negative: dynamic, 0 in the first epoch, then one over one plus the mean of the other losses in the last.
        config.loss.graph_weight = -1.0
    config.optim.new_layers = ("^(bottleneck|classifier|parts|graph)/",)  # all others at base_lr_factor, a tenth
    config.optim.milestones = (30, 50)
    config.optim.period = 80  # of the cosine, where optim.schedule names it
    config.eval.feature = "fc_att"
    return config
