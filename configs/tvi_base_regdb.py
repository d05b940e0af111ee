"""TVI-LFM on RegDB, base stage: a two-stream ResNet-50 with learned pooling, images alone, 288x144.

    python main.py --config configs/tvi_base_regdb.py --config.init.backbone=resnet50-19c8e357.pth

Then ``configs/tvi_regdb.py``. Splits 2 to 10, one model each: --config.data.dataset=regdb/trial_2 and so on.
Settings as in ``configs/tvi_base_sysu.py``, at a higher rate. Thermal images search visible ones.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.on_regdb(common.tvi_lfm())
    config.optim.lr = 2e-3
    return config
