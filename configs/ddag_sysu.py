"""DDAG on SYSU-MM01: 395 training identities, one ResNet-50 with a stem for each modality, 288x144.

    python main.py --config configs/ddag_sysu.py --config.init.backbone=resnet50-19c8e357.pth

Without the data: add --config.data.drawn=True to run on drawn people in the same layout.
Published (README of the authors' code) from ImageNet weights, rank-1 / mAP / mINP: 54.75 / 53.02 / 39.62 all-search and
61.02 / 67.98 / 62.61 indoor-search, single-shot; from MMGL's weights 56.75 / 53.96 all-search (README of MMGL).
The rate falls in epochs 30 and 50, as in the copy of the code that MMGL released. The authors' own:
    --config.optim.milestones="(20,50)"     steps 20/50, which gave the numbers from ImageNet weights
    --config.optim.schedule=cosine          cosine to epoch 80 after the warm-up, seen in MMGL's logs
Ablations (the authors' code cannot run the first two):
    B       --config.model.wpa=False --config.model.graph=False --config.eval.feature=fc
    B+G     --config.model.wpa=False --config.eval.feature=fc
    B+P     --config.model.graph=False
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    return common.ddag()
