"""TVI-LFM on LLCM, base stage: a two-stream ResNet-50 with learned pooling, images alone, 288x144.

    python main.py --config configs/tvi_base_llcm.py --config.init.backbone=resnet50-19c8e357.pth

Then ``configs/tvi_llcm.py``. Settings as in ``configs/tvi_base_sysu.py``.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.tvi_lfm()
    config.data.dataset = "llcm"
    return config
