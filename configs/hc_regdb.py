"""Hetero-Center on RegDB: 206 training identities, a ResNet-50 for each modality, six strips, 288x144.

    python main.py --config configs/hc_regdb.py --config.init.backbone=resnet50-19c8e357.pth

Splits 2 to 10, one model each: --config.data.dataset=regdb/trial_2 and so on.
Published (README of the authors' code), visible to thermal, mean of ten splits: rank-1 about 83, mAP about 72.
Settings, features and deviations as in ``configs/hc_sysu.py``.
"""

from ml_collections import ConfigDict

from configs.systems import hetero_center


def get_config() -> ConfigDict:
    config = hetero_center.hetero_center()
    config.data.update(image_size=(288, 144), padding=0, flip=0.5, erasing=0.0)
    config.model.update(backbone="resnet50", embed_dim=512, strips=6)
    config.loss.update(ce_weight=1.0, distance="l2", hc_weight=0.5, label_smoothing=0.0)
    config.optim.update(
        name="sgd",
        lr=0.01,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        schedule="multi_step",
        warmup_epochs=0,
        milestones=(30, 60),
        decay=0.1,
        epochs=61,
    )
    config.train.update(identities_per_batch=4, images_per_identity=8)
    config.eval.update(feature="fc")
    config.data.dataset = "regdb"
    return config
