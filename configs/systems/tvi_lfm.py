"""TVI-LFM, both stages."""

from ml_collections import ConfigDict

from configs.systems import visible_infrared


def tvi_lfm() -> ConfigDict:
    """TVI-LFM's base stage on SYSU-MM01 as released; the other experiments change what differs."""
    config = visible_infrared.visible_infrared()
    config.method = "tvi_lfm"
    config.seed = 1
    config.data.second_views = ("rgb",)  # the second one with half of its images in one channel
    config.data.grey_of = (("rgb", 0.1),)
    config.data.erasing = 0.6
    config.data.erasing_of = (("nir", 0.5),)
    config.data.erasing_form = "torchreid"
    config.data.erasing_fill = (0.4914, 0.4822, 0.4465)  # after normalisation, as released
    config.model = ConfigDict(
        dict(
            # "base": images alone; "text": the text tower beside a base model; "visible_text": visible images and their
            # captions ("RGB_Text").
            stage="base",
            backbone="resnet50",  # resnet_micro for tests
            last_stride=1,
            gem_power=3.0,  # of the pooling at the start
            text_tower="clip_rn50",  # sizes; text_micro for tests
            # How an infrared feature becomes a query: "filter" adds the visible text and takes the infrared one off,
            # "add" adds the visible one; "norm_add": see the method; "parameter_add": the image in fusion_share parts
            # of one, the visible text in the others.
            fusion="filter",
            fusion_share=0.1,
            # Text stage: "code": the weights of the visual network are fixed and its running statistics drift, as
            # released and published; "all": it is fixed, as the paper says; "none": it trains along.
            freeze_visual="code",
            separate_norms=False,  # a batch norm of its own for visible, infrared, fused and text features
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
            # Of the triplet's weights: "code", as released and published, in which far negatives lose their weight;
            # "softmax", as the equation says.
            triplet_form="code",
            joint=True,  # images, fusions and texts in one loss; False: visible images and fusions
            # Terms of the text stage that no released script uses.
            ce_without_ir_weight=0.0,
            triplet_without_ir_weight=0.0,
            orthogonality_weight=0.0,  # of infrared features and what the visible text adds to the infrared one
            orthogonality_sum_weight=0.0,  # the same, summed over all pairs
            i2t_regular_weight=0.0,  # infrared features are as similar to fusions as texts are
            t2i_regular_weight=0.0,  # the other way round
            image_to_text_weight=0.0,
            text_to_image_weight=0.0,
        )
    )
    config.optim.name = "adam"
    config.optim.lr = 3.5e-4
    config.optim.nesterov = False
    config.optim.warmup_start = 0.01
    config.optim.milestones = (40, 60, 100)
    config.optim.epochs = 120
    config.groups = ConfigDict(
        dict(
            head_lr_factor=2.0,  # batch norm and classifier
            text_lr=1e-5,  # of the text tower's blocks
            text_bias_lr_factor=2.0,
            # Negative: config.optim.weight_decay, as released, whatever its scripts name for text.
            text_weight_decay=-1.0,
            text_bias_weight_decay=0.0,
            whole_tower=False,  # embeddings, projection and last norm at these rates, too; released: at config.optim.lr
        )
    )
    return config


def tvi_lfm_text() -> ConfigDict:
    """TVI-LFM's text stage on SYSU-MM01 as released."""
    config = tvi_lfm()
    config.model.stage = "text"
    config.data.text = True
    config.groups.text_lr = 3.5e-4
    config.groups.text_bias_weight_decay = 5e-4
    config.eval.feature = "fusion"
    return config


def on_regdb(config: ConfigDict) -> ConfigDict:
    """TVI-LFM on RegDB, whose thermal images search the visible ones."""
    config.data.dataset = "regdb"
    config.data.erasing_of = (("tir", 0.5),)
    config.eval.protocol = "regdb_thermal_to_visible"
    return config
