"""AGW on RegDB: 206 training identities, one ResNet-50 with a stem for each modality, 288x144.

    python main.py --config configs/agw_regdb.py --config.init.backbone=resnet50-19c8e357.pth

Splits 2 to 10, one model each: --config.data.dataset=regdb/trial_2 and so on.
Published (README of the authors' code), visible to thermal, mean of ten splits: rank-1 70.05, mAP 66.37, mINP 50.19.
Settings as in ``configs/agw_sysu.py``.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.agw()
    config.data.dataset = "regdb"
    return config
