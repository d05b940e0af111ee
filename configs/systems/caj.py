"""CAJ."""

from ml_collections import ConfigDict

from configs.systems import agw


def caj() -> ConfigDict:
    """CAJ on SYSU-MM01 as released; the other experiments change what differs."""
    config = agw.agw()
    config.method = "caj"
    config.data.second_views = ("rgb",)  # the second one is shown in one of its channels
    config.data.erasing = 0.5
    config.data.erasing_form = "torchreid"
    config.data.erasing_fill = (0.4914, 0.4822, 0.4465)  # after normalisation, as released
    with config.loss.unlocked():
        config.loss.alpha = 1.0  # factor on the distances in the triplet's weights
        config.loss.gamma = 1.0  # factor on the squared difference
        config.loss.square = True  # False: the difference itself
        config.loss.kl_weight = 0.0  # of the divergence of visible from infrared predictions
        config.loss.temperature = 3.0  # of that divergence
    config.loss.triplet = "squared_difference"
    config.optim.epochs = 100
    with config.eval.unlocked():
        config.eval.mirror = True  # average the features of every image and its mirror image
    return config
