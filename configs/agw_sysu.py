"""AGW on SYSU-MM01: 395 training identities, one ResNet-50 with a stem for each modality, 288x144.

    python main.py --config configs/agw_sysu.py --config.init.backbone=resnet50-19c8e357.pth

Without the data: add --config.data.drawn=True to run on drawn people in the same layout.
Published from ImageNet weights, single-shot, rank-1 / mAP / mINP: 47.50 / 47.65 / 35.30 all-search (README of the
authors' code), 54.17 / 62.97 / 59.23 indoor-search (README of DDAG); from MMGL's weights 56.97 / 54.61 all-search
(README of MMGL). The authors' seeded draw order: --config.train.sampler=reference.
What AGW adds to Base, one by one:
    non-local blocks        --config.model.non_local="()" leaves them out
    generalised mean        --config.model.pooling=avg
    weighted triplet loss   --config.loss.triplet=batch_hard
The weights of that loss as its equation has them: --config.loss.triplet_form=softmax.
Cost: a step holds 8.3 GiB (``python -m mmreid_jax complexity``, float32, compiled for a CPU); 0.27 s a step was
reported of the authors' code with the same batch (GPU not named).
"""

from ml_collections import ConfigDict

from configs.systems import agw


def get_config() -> ConfigDict:
    config = agw.agw()
    config.data.update(dataset="sysu_mm01", image_size=(288, 144), padding=10, flip=0.5, erasing=0.0)
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
    return config
