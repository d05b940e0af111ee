"""TVI-LFM on LLCM, base stage: a two-stream ResNet-50 with learned pooling, images alone, 288x144.

    python main.py --config configs/tvi_base_llcm.py --config.init.backbone=resnet50-19c8e357.pth

Then ``configs/tvi_llcm.py``. Settings as in ``configs/tvi_base_sysu.py``.
Cost (paper, one RTX 3090): nine hours, 9 GB.
"""

from ml_collections import ConfigDict

from configs.systems import tvi_lfm


def get_config() -> ConfigDict:
    config = tvi_lfm.tvi_lfm()
    config.data.update(
        image_size=(288, 144),
        padding=10,
        flip=0.5,
        erasing=0.6,
        second_views=("rgb",),
        grey_of=(("rgb", 0.1),),
        erasing_of=(("nir", 0.5),),
        erasing_form="torchreid",
        erasing_fill=(0.4914, 0.4822, 0.4465),
    )
    config.model.update(
        backbone="resnet50", freeze_visual="code", fusion="filter", gem_power=3.0, stage="base", text_tower="clip_rn50"
    )
    config.loss.update(ce_weight=1.0, joint=True, label_smoothing=0.0, triplet_form="code", triplet_weight=1.0)
    config.groups.update(
        head_lr_factor=2.0,
        text_bias_lr_factor=2.0,
        text_bias_weight_decay=0.0,
        text_lr=1e-5,
        text_weight_decay=-1.0,
        whole_tower=False,
    )
    config.optim.update(
        name="adam",
        lr=3.5e-4,
        weight_decay=5e-4,
        schedule="multi_step",
        warmup_epochs=10,
        milestones=(40, 60, 100),
        decay=0.1,
        epochs=120,
    )
    config.train.update(identities_per_batch=8, images_per_identity=4)
    config.eval.update(feature="fc")
    config.data.dataset = "llcm"
    return config
