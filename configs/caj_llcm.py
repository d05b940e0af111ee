"""CAJ on LLCM: AGW's network, visible images also in the grey of one of their channels, 288x144.

    python main.py --config configs/caj_llcm.py --config.init.backbone=resnet50-19c8e357.pth

Published (README of LLCM), rank-1 / mAP: infrared to visible 49.86 / 56.40; "visible to infrared" 63.73 / 47.71 with
the roles of query and gallery swapped, which is the protocol llcm's vis_to_ir_repo.
Settings as in ``configs/caj_sysu.py``.
"""

from ml_collections import ConfigDict

from configs.systems import caj


def get_config() -> ConfigDict:
    config = caj.caj()
    config.data.update(
        image_size=(288, 144),
        padding=10,
        flip=0.5,
        erasing=0.5,
        second_views=("rgb",),
        erasing_form="torchreid",
        erasing_fill=(0.4914, 0.4822, 0.4465),
    )
    config.model.update(
        backbone="resnet50",
        gem_power=3.0,
        non_local=((2, 2), (2, 3), (3, 3), (3, 4), (3, 5)),
        pooling="gem",
        shared_from=1,
    )
    config.loss.update(
        alpha=1.0,
        ce_weight=1.0,
        gamma=1.0,
        label_smoothing=0.0,
        square=True,
        temperature=3.0,
        triplet="squared_difference",
        triplet_form="code",
        triplet_margin=0.3,
        triplet_weight=1.0,
    )
    config.optim.update(
        name="sgd",
        lr=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        base_lr_factor=0.1,
        schedule="multi_step",
        warmup_epochs=10,
        milestones=(20, 50),
        decay=0.1,
        epochs=100,
    )
    config.train.update(identities_per_batch=8, images_per_identity=4)
    config.eval.update(feature="fc")
    config.data.dataset = "llcm"
    return config
