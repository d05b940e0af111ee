"""TVI-LFM on LLCM with the captions of Tri-LLCM, text stage: CLIP's text tower beside the base model.

    python main.py --config configs/tvi_base_llcm.py --config.init.backbone=resnet50-19c8e357.pth
    python main.py --config configs/tvi_llcm.py --config.init.clip=RN50.pt

Published (paper), near-infrared and text to visible, rank-1 / mAP / mINP: 58.19 / 65.08 / 61.83, comparison "mer". The
released code scores infrared images alone by the rule of SYSU-MM01, under which same-camera matches stay; here they are
removed for all comparisons. Settings as in ``configs/tvi_sysu.py``.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.tvi_lfm_text()
    config.data.dataset = "llcm"
    config.init.from_base = "runs/tvi_base_llcm"
    return config
