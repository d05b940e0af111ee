"""TVI-LFM on RegDB with the captions of Tri-RegDB, text stage: CLIP's text tower beside the base model.

    python main.py --config configs/tvi_base_regdb.py --config.init.backbone=resnet50-19c8e357.pth
    python main.py --config configs/tvi_regdb.py --config.init.clip=RN50.pt

Splits 2 to 10, one base model and one of this stage each: both with --config.data.dataset=regdb/trial_2 and a --workdir
of their own, the second with --config.init.from_base=WORKDIR of the first.
Published (paper), thermal and text to visible, rank-1 / mAP / mINP: 91.38 / 85.92 / 72.73, comparison "mer".
Settings as in ``configs/tvi_sysu.py``, but the blocks of the text tower train at 1e-5, and their biases do not decay.
Cost (paper, one RTX 3090): ten minutes, with its 20 epochs, and 5 GB, beside the one hour of the base model.
"""

from ml_collections import ConfigDict

from configs.systems import tvi_lfm


def get_config() -> ConfigDict:
    config = tvi_lfm.on_regdb(tvi_lfm.tvi_lfm_text())
    config.data.update(
        dataset="regdb",
        image_size=(288, 144),
        padding=10,
        flip=0.5,
        erasing=0.6,
        second_views=("rgb",),
        grey_of=(("rgb", 0.1),),
        erasing_of=(("tir", 0.5),),
        erasing_form="torchreid",
        erasing_fill=(0.4914, 0.4822, 0.4465),
        text=True,
        rephrased=0.5,
    )
    config.model.update(
        backbone="resnet50", freeze_visual="code", fusion="filter", gem_power=3.0, stage="text", text_tower="clip_rn50"
    )
    config.loss.update(ce_weight=1.0, joint=True, label_smoothing=0.0, triplet_form="code", triplet_weight=1.0)
    config.groups.update(head_lr_factor=2.0, text_bias_lr_factor=2.0, text_weight_decay=-1.0, whole_tower=False)
    config.optim.update(
        name="adam",
        weight_decay=5e-4,
        schedule="multi_step",
        warmup_epochs=10,
        milestones=(40, 60, 100),
        decay=0.1,
        epochs=120,
    )
    config.train.update(identities_per_batch=8, images_per_identity=4)
    config.eval.update(feature="fusion")
    config.optim.lr = 2e-3
    config.groups.text_lr = 1e-5
    config.groups.text_bias_weight_decay = 0.0
    config.init.from_base = "runs/tvi_base_regdb"
    return config
