"""What the systems on CLIP's ViT-B/16 share: DeMo and MDReID."""

from ml_collections import ConfigDict

from configs import common


def clip_trunk() -> ConfigDict:
    """All sections but those of the system itself, on RGBNT201."""
    config = ConfigDict()
    config.method = ""
    config.task = "train"
    config.seed = 1111
    # "released": every choice that the released program made where there is more than one, see docs/compare.md.
    config.parity = ""
    config.data = common.data()
    config.data.flip = 0.5
    config.init = common.initial()
    config.model = ConfigDict(
        dict(
            backbone="clip_vit_b16_projected",  # any transformer of HTT; clip_vit_micro for tests
            side_camera=True,  # the camera is added to the class token
            side_weight=1.0,
            num_classes=0,  # 0: number of training identities
            dtype="float32",  # or bfloat16
            remat=False,  # less memory, about 10 % more time
            attention="plain",  # or xla, cudnn (flash attention, bfloat16 on a GPU)
            unroll=1,
        )
    )
    config.loss = ConfigDict(
        dict(
            ce_weight=0.25,
            label_smoothing=0.1,
            triplet_weight=1.0,  # with a soft margin
        )
    )
    config.optim = common.optim()
    config.optim.name = "adam"
    config.optim.lr = 3.5e-4
    # All but the transformer itself: the table of cameras is new, too.
    config.optim.new_layers = ("^(?!backbone/)", "^backbone/sie_embed")
    config.optim.base_lr_factor = 1 / 70  # of the transformer: 5e-6
    config.optim.bias_lr_factor = 2.0
    config.optim.schedule = "shared_ends"
    config.optim.warmup_epochs = 10
    config.optim.epochs = 50
    with config.optim.unlocked():
        config.optim.warmup_start = 0.1  # of lr, in all groups: the transformer warms DOWN
        config.optim.minimum = 0.001  # of lr, in all groups
        config.optim.noise = 0.67  # every epoch's rate is disturbed by up to this share
    config.train = common.train()
    config.train.identities_per_batch, config.train.images_per_identity = 8, 8
    config.train.eval_every = 1
    with config.train.unlocked():
        config.train.missing_modalities = 0.0  # probability that a training sample lacks a random set of modalities
    config.eval = common.evaluation_of_sets()
    config.eval.feature = "all"
    return config
