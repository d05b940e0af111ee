"""CAJ on LLCM: AGW's network, visible images also in the grey of one of their channels, 288x144.

    python main.py --config configs/caj_llcm.py --config.init.backbone=resnet50-19c8e357.pth

Published (README of LLCM), rank-1 / mAP: infrared to visible 49.86 / 56.40; "visible to infrared" 63.73 / 47.71 with
the roles of query and gallery swapped, which is the protocol llcm's vis_to_ir_repo.
Settings as in ``configs/caj_sysu.py``.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.caj()
    config.data.dataset = "llcm"
    return config
