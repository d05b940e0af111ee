"""Hetero-Center on RegDB: 206 training identities, a ResNet-50 for each modality, six strips, 288x144.

    python main.py --config configs/hc_regdb.py --config.init.backbone=resnet50-19c8e357.pth

Splits 2 to 10, one model each: --config.data.dataset=regdb/trial_2 and so on.
Published (README of the authors' code), visible to thermal, mean of ten splits: rank-1 about 83, mAP about 72.
Settings, features and deviations as in ``configs/hc_sysu.py``.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.hetero_center()
    config.data.dataset = "regdb"
    return config
