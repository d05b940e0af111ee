"""DEEN."""

from ml_collections import ConfigDict

from configs.systems import visible_infrared


def deen() -> ConfigDict:
    """DEEN on SYSU-MM01 as released; the other experiments change what differs."""
    config = visible_infrared.visible_infrared()
    config.method = "deen"
    config.data.image_size = (384, 144)
    config.data.grey_of = (("rgb", 0.5), ("nir", 0.5))
    config.data.erasing = 0.5
    config.data.erasing_form = "torchreid"  # filled with the numbers of the mean after normalisation, as released
    config.data.erasing_area = (0.2, 0.8)
    config.model = ConfigDict(
        dict(
            backbone="resnet50",  # resnet_micro for tests
            last_stride=1,
            # The stage after which every embedding is expanded to three; those up to it are aggregated, the next one is
            # the last. 3; on RegDB 2.
            expanded=3,
            dropout=0.01,  # of the expanded maps
            num_classes=0,  # 0: number of training identities
            dtype="float32",  # or bfloat16
            remat=False,  # less memory, more time
        )
    )
    config.loss = ConfigDict(
        dict(
            ce_weight=1.0,
            label_smoothing=0.0,
            triplet_weight=1.0,
            triplet_margin=0.3,
            cpm_weight=0.8,  # of the centre-guided pairs of the first copy and of each of the others
            cpm_margin=0.2,
            orthogonality_weight=0.01,  # of the second and the third copy
            # Whose centres the pairs are of: "by_label", right for any batch; "positional": consecutive chunks, as
            # released. The same on the batches that the sampler makes.
            grouping="by_label",
        )
    )
    config.optim.new_layers = ("^bottleneck/", "^classifier/")  # all others at base_lr_factor, a tenth
    config.optim.milestones = (20, 80)
    config.optim.epochs = 151
    config.train.identities_per_batch, config.train.images_per_identity = 6, 4
    config.train.eval_every = 1
    config.eval.feature = "all"
    with config.eval.unlocked():
        config.eval.mirror = True  # add the features of every image and its mirror image; off in the authors' training
        # Of the pooled and the normalised features in the score; (0.1, 0.9) is the authors' second score.
        config.eval.weights = (1.0, 1.0)
    return config


def on_regdb(config: ConfigDict) -> ConfigDict:
    """DEEN on RegDB: a shorter network, and smaller rectangles are erased."""
    config.data.dataset = "regdb"
    config.data.grey_of = (("rgb", 0.5), ("tir", 0.5))
    config.data.erasing_area = ()
    config.model.expanded = 2
    return config


def on_llcm(config: ConfigDict) -> ConfigDict:
    """DEEN on LLCM: smaller rectangles are erased."""
    config.data.dataset = "llcm"
    config.data.erasing_area = ()
    return config
