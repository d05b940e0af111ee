"""Hetero-Center on SYSU-MM01: 395 training identities, a ResNet-50 for each modality, six strips, 288x144.

    python main.py --config configs/hc_sysu.py --config.init.backbone=resnet50-19c8e357.pth

Without the data: add --config.data.drawn=True to run on drawn people in the same layout.
Published (README of the authors' code), all-search single-shot: rank-1 about 56, mAP about 54. Later papers quote
56.96 / 54.95, and 59.74 / 64.91 for indoor-search. Which of the two features the numbers are of is not said;
checkpoints are selected by ``fc``, here as there. Cross-entropy alone: --config.loss.hc_weight=0
Deviations: the authors' sampler loses the first batch of every epoch and trains on the second one twice
(--config.train.sampler=hetero_center does); their gallery draws follow one stream of random numbers, ours are seeded by
the trial as in the papers after it (--config.eval.protocol=sysu_all_single_hetero_center). Padding by 10 pixels before
the crop, which later papers add: --config.data.padding=10
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    return common.hetero_center()
