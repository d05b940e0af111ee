"""DDAG on RegDB: 206 training identities, one ResNet-50 with a stem for each modality, 288x144.

    python main.py --config configs/ddag_regdb.py --config.init.backbone=resnet50-19c8e357.pth

Splits 2 to 10, one model each: --config.data.dataset=regdb/trial_2 and so on.
Published from ImageNet weights (the paper, as later ones quote it), mean of ten splits: rank-1 69.34, mAP 63.46 visible
to thermal, rank-1 68.06 the other way round. Schedules and ablations as in ``configs/ddag_sysu.py``.
"""

from ml_collections import ConfigDict

from configs.systems import ddag


def get_config() -> ConfigDict:
    config = ddag.ddag()
    config.data.update(image_size=(288, 144), padding=10, flip=0.5, erasing=0.0)
    config.model.update(
        backbone="resnet50",
        dropout=0.2,
        gem_power=3.0,
        graph=True,
        graph_dim=512,
        graph_heads=4,
        parts=3,
        pooling="avg",
        shared_from=1,
        wpa=True,
    )
    config.loss.update(
        ce_weight=1.0,
        graph_weight=-1.0,
        label_smoothing=0.0,
        part_weight=1.0,
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
        milestones=(30, 50),
        decay=0.1,
        epochs=81,
    )
    config.train.update(identities_per_batch=8, images_per_identity=4)
    config.eval.update(feature="fc_att")
    config.data.dataset = "regdb"
    return config
