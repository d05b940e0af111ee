"""AGW on LLCM: 713 training identities, one ResNet-50 with a stem for each modality, 288x144.

    python main.py --config configs/agw_llcm.py --config.init.backbone=resnet50-19c8e357.pth

Published (README of LLCM), rank-1 / mAP: infrared to visible 49.13 / 55.80; "visible to infrared" 63.72 / 47.21 with
the roles of query and gallery swapped, which is the protocol llcm's vis_to_ir_repo.
As in ``configs/agw_sysu.py``, with random erasing (filled with 0 after normalisation), as in LLCM's copy of the code.
"""

from ml_collections import ConfigDict

from configs.systems import agw


def get_config() -> ConfigDict:
    config = agw.agw()
    config.data.update(image_size=(288, 144), padding=10, flip=0.5)
    config.model.update(
        backbone="resnet50",
        gem_power=3.0,
        non_local=((2, 2), (2, 3), (3, 3), (3, 4), (3, 5)),
        pooling="gem",
        shared_from=1,
    )
    config.loss.update(
        ce_weight=1.0,
        label_smoothing=0.0,
        triplet="weighted",
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
        epochs=81,
    )
    config.train.update(identities_per_batch=8, images_per_identity=4)
    config.eval.update(feature="fc")
    config.data.dataset = "llcm"
    config.data.erasing = 0.5
    config.data.erasing_form = "torchreid"
    config.data.erasing_fill = (0.0, 0.0, 0.0)
    return config
