"""Base on SYSU-MM01: AGW's network without its additions, 395 training identities, a stem for each modality, 288x144.

    python main.py --config configs/base_sysu.py --config.init.backbone=resnet50-19c8e357.pth

Without the data: add --config.data.drawn=True to run on drawn people in the same layout.
Average pooling, cross-entropy and batch-hard triplet loss with margin 0.3; "--method base" of the AGW family's code. No
published numbers. The authors' seeded draw order: --config.train.sampler=reference.
"""

from ml_collections import ConfigDict

from configs.systems import agw


def get_config() -> ConfigDict:
    config = agw.base()
    config.data.update(dataset="sysu_mm01", image_size=(288, 144), padding=10, flip=0.5, erasing=0.0)
    config.model.update(backbone="resnet50", gem_power=3.0, pooling="avg", shared_from=1)
    config.loss.update(
        ce_weight=1.0,
        label_smoothing=0.0,
        triplet="batch_hard",
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
    return config
