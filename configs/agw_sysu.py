"""AGW on SYSU-MM01: 395 training identities, one ResNet-50 with a stem for each modality, 288x144.

    python main.py --config configs/agw_sysu.py --config.init.backbone=resnet50-19c8e357.pth

Without the data: add --config.data.drawn=True to run on drawn people in the same layout.
Published from ImageNet weights, single-shot, rank-1 / mAP / mINP: 47.50 / 47.65 / 35.30 all-search (README of the
authors' code), 54.17 / 62.97 / 59.23 indoor-search (README of DDAG); from MMGL's weights 56.97 / 54.61 all-search
(README of MMGL). The authors' seeded draw order: --config.train.sampler=reference.
What AGW adds to Base, one by one:
    non-local blocks        --config.model.non_local="()" leaves them out
    generalised mean        --config.model.pooling=avg
    weighted triplet loss   --config.loss.triplet=batch_hard
The weights of that loss as its equation has them: --config.loss.triplet_form=softmax.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    return common.agw()
