"""CAJ on SYSU-MM01: AGW's network, visible images also in the grey of one of their channels, 288x144.

    python main.py --config configs/caj_sysu.py --config.init.backbone=resnet50-19c8e357.pth

Without the data: add --config.data.drawn=True to run on drawn people in the same layout.
Published (README of the authors' code), all-search, single-shot: rank-1 69.88, mAP 66.89, mINP 53.61.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    return common.caj()
