"""CAJ on RegDB: AGW's network, visible images also in the grey of one of their channels, 288x144.

    python main.py --config configs/caj_regdb.py --config.init.backbone=resnet50-19c8e357.pth

Splits 2 to 10, one model each: --config.data.dataset=regdb/trial_2 and so on.
Published (README of the authors' code), visible to thermal, mean of ten splits: rank-1 85.03, mAP 79.14, mINP 65.33.
Settings as in ``configs/caj_sysu.py``.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.caj()
    config.data.dataset = "regdb"
    return config
