"""IEEE."""

from ml_collections import ConfigDict

from configs import common


def ieee() -> ConfigDict:
    """IEEE on RGBNT201 as released; the other experiments change what differs."""
    config = ConfigDict()
    config.method = "ieee"
    config.task = "train"
    config.seed = 40
    # "released": every choice that the released program made where there is more than one, see docs/compare.md.
    config.parity = ""
    config.data = common.data()
    config.data.interpolation = "bilinear"
    config.data.padding = 0
    config.data.flip = 0.5
    config.data.erasing = 0.0
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.init = common.initial()
    config.model = ConfigDict(
        dict(
            backbone="resnet50",  # one for each modality; resnet_micro for tests
            last_stride=1,
            parts=6,
            part_dim=768,
            embed_dim=128,
            cim=True,  # cross-modal interacting module
            cim_attention=True,  # channel attention inside of it
            rem="code",  # relation-based embedding module; "paper" or "off"
            global_from="backbone",  # as released; "cim": as the paper says
            num_classes=0,  # 0: number of training identities; 171 to load the released heads
            streams="loop",  # run the modalities one after the other, or stacked by "vmap": the same numbers
            dtype="float32",  # or bfloat16
            remat=False,  # less memory, more time
        )
    )
    config.loss = ConfigDict(
        dict(
            name="margin",  # cross-entropy and 3M; "softmax": cross-entropy alone; "triplet", "hcloss" beside it
            weight_x=1.0,  # of the cross-entropy, summed over parts and modalities
            weight_m=1.0,  # of the other loss
            margin=1.0,  # of 3M
            triplet_margin=0.3,
            label_smoothing=0.1,
            grouping="by_label",  # or "positional": the reference's chunks; equal on PK batches
        )
    )
    config.optim = common.optim()
    config.optim.lr = 0.001
    config.optim.nesterov = True
    config.optim.weight_decay = 5e-4
    config.optim.bias_lr_factor = 1.0
    config.optim.schedule = "multi_step"
    config.optim.warmup_epochs = 0
    config.optim.milestones = (20, 40)
    config.optim.epochs = 60
    config.train = common.train()
    config.train.identities_per_batch = 2
    config.train.images_per_identity = 4
    config.train.fixbase_epochs = 0  # first epochs, in which open_layers train alone
    config.train.open_layers = ("classifier",)  # backbone, own, rest, attention, reduce, relation, embed, classifier
    config.train.eval_every = 6
    config.eval = common.evaluation_of_sets()
    config.eval.feature = "whole"
    config.eval.normalize = False
    config.eval.cross_modal = False  # also let every modality query every other one
    config.eval.rerank_k1 = 20
    config.eval.rerank_k2 = 6
    config.eval.rerank_distance = "squared_euclidean"
    return config
