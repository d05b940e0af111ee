"""TVI-LFM on SYSU-MM01, base stage: a two-stream ResNet-50 with learned pooling, images alone, 288x144.

    python main.py --config configs/tvi_base_sysu.py --config.init.backbone=resnet50-19c8e357.pth

Then ``configs/tvi_sysu.py``. Without the data: add --config.data.drawn=True to run on drawn people in the same layout.
Published: only what the text stage makes of it. As released: every second epoch is scored on the test images and the
best is kept; the authors begin with that at epoch 80.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    return common.tvi_lfm()
