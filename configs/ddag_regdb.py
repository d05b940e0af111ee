"""DDAG on RegDB: 206 training identities, one ResNet-50 with a stem for each modality, 288x144.

    python main.py --config configs/ddag_regdb.py --config.init.backbone=resnet50-19c8e357.pth

Splits 2 to 10, one model each: --config.data.dataset=regdb/trial_2 and so on.
Published from ImageNet weights (the paper, as later ones quote it), mean of ten splits: rank-1 69.34, mAP 63.46 visible
to thermal, rank-1 68.06 the other way round. Schedules and ablations as in ``configs/ddag_sysu.py``.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.ddag()
    config.data.dataset = "regdb"
    return config
