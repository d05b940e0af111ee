"""AGW on LLCM: 713 training identities, one ResNet-50 with a stem for each modality, 288x144.

    python main.py --config configs/agw_llcm.py --config.init.backbone=resnet50-19c8e357.pth

Published (README of LLCM), rank-1 / mAP: infrared to visible 49.13 / 55.80; "visible to infrared" 63.72 / 47.21 with
the roles of query and gallery swapped, which is the protocol llcm's vis_to_ir_repo.
As in ``configs/agw_sysu.py``, with random erasing (filled with 0 after normalisation), as in LLCM's copy of the code.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.agw()
    config.data.dataset = "llcm"
    config.data.erasing = 0.5
    config.data.erasing_form = "torchreid"
    config.data.erasing_fill = (0.0, 0.0, 0.0)
    return config
