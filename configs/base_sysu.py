"""Base on SYSU-MM01: AGW's network without its additions, 395 training identities, a stem for each modality, 288x144.

    python main.py --config configs/base_sysu.py --config.init.backbone=resnet50-19c8e357.pth

Without the data: add --config.data.drawn=True to run on drawn people in the same layout.
Average pooling, cross-entropy and batch-hard triplet loss with margin 0.3; "--method base" of the AGW family's code. No
published numbers. The authors' seeded draw order: --config.train.sampler=reference.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    return common.base()
