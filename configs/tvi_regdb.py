"""TVI-LFM on RegDB with the captions of Tri-RegDB, text stage: CLIP's text tower beside the base model.

    python main.py --config configs/tvi_base_regdb.py --config.init.backbone=resnet50-19c8e357.pth
    python main.py --config configs/tvi_regdb.py --config.init.clip=RN50.pt

Splits 2 to 10, one base model and one of this stage each: both with --config.data.dataset=regdb/trial_2 and a --workdir
of their own, the second with --config.init.from_base=WORKDIR of the first.
Published (paper), thermal and text to visible, rank-1 / mAP / mINP: 91.38 / 85.92 / 72.73, comparison "mer".
Settings as in ``configs/tvi_sysu.py``, but the blocks of the text tower train at 1e-5, and their biases do not decay.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.on_regdb(common.tvi_lfm_text())
    config.optim.lr = 2e-3
    config.groups.text_lr = 1e-5
    config.groups.text_bias_weight_decay = 0.0
    config.init.from_base = "runs/tvi_base_regdb"
    return config
