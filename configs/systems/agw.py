"""Base and AGW."""

from ml_collections import ConfigDict

from configs.systems import visible_infrared


def base() -> ConfigDict:
    """The Base network of the AGW family on SYSU-MM01; the other experiments change what differs."""
    config = visible_infrared.visible_infrared()
    config.method = "agw"
    config.model = ConfigDict(
        dict(
            backbone="resnet50",  # resnet_micro for tests
            last_stride=1,
            # Parts of the network that each modality has for itself, counted from the stem: 0 none, 1 the stem, ...,
            # 5 all. The published checkpoints have 1.
            shared_from=1,
            non_local=(),  # (stage, block) of the blocks that a non-local block follows
            pooling="avg",  # or "gem": generalised mean
            gem_power=3.0,
            num_classes=0,  # 0: number of training identities
            dtype="float32",  # or bfloat16
            remat=False,  # less memory, more time
        )
    )
    config.loss = ConfigDict(
        dict(
            ce_weight=1.0,
            label_smoothing=0.0,
            triplet="batch_hard",  # or "weighted": AGW's weighted regularised triplet
            triplet_weight=1.0,
            triplet_margin=0.3,  # of batch_hard
            # Of the weights of "weighted": "code", as released and published, in which far negatives lose their weight;
            # "softmax", as the paper's equation says. They train differently.
            triplet_form="code",
        )
    )
    config.optim.new_layers = ("^bottleneck/", "^classifier/")  # all others at base_lr_factor, a tenth
    return config


def agw() -> ConfigDict:
    """AGW on SYSU-MM01 as released; the other experiments change what differs."""
    config = base()
    config.model.non_local = ((2, 2), (2, 3), (3, 3), (3, 4), (3, 5))
    config.model.pooling = "gem"
    config.loss.triplet = "weighted"
    return config
