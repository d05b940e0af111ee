"""TVI-LFM on SYSU-MM01 with the captions of Tri-SYSU-MM01, text stage: CLIP's text tower beside the base model.

    python main.py --config configs/tvi_base_sysu.py --config.init.backbone=resnet50-19c8e357.pth
    python main.py --config configs/tvi_sysu.py --config.init.clip=RN50.pt

The base model is that of the first command; another one: --config.init.from_base=WORKDIR_OR_FILE (the authors' file
holds CLIP's text tower, too). Without the data: add --config.data.drawn=True to both.
Published (paper), infrared and text to visible, single-shot, rank-1 / mAP / mINP: all-search 84.90 / 81.47 / 70.85,
indoor 89.06 / 90.78 / 88.39, comparison "mer"; third parties found 81.2 +- 0.7 / 77.2 / 64.9. Known: the paper trains
20 epochs, the released code 120, which is what stands here (--config.optim.epochs).
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.tvi_lfm_text()
    config.init.from_base = "runs/tvi_base_sysu"
    return config
