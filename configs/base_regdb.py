"""Base on RegDB: AGW's network without its additions, 206 training identities, a stem for each modality, 288x144.

    python main.py --config configs/base_regdb.py --config.init.backbone=resnet50-19c8e357.pth

Splits 2 to 10, one model each: --config.data.dataset=regdb/trial_2 and so on. Settings as in ``configs/base_sysu.py``.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.base()
    config.data.dataset = "regdb"
    return config
