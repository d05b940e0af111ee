"""IEEE on Market1501-MM (Market-1501 with a generated thermal image, darkened RGB and grey as near infrared), 256x128.

    python main.py --config configs/ieee_market1501_mm.py --config.init.backbone=resnet50-19c8e357.pth

Without the data: add --config.data.drawn=True to run on drawn people in the same layout.
Published (Wang et al., AAAI 2022, table 1): mAP 64.32, rank-1 83.93, rank-5 92.96, rank-10 95.69.
Settings are those of RGBNT201. An old config of the authors' repository for this data set has batches of 32, 100
epochs, a step at 30, 5 epochs with the classifiers alone and margin 3:
    --config.train.identities_per_batch=8 --config.optim.epochs=100 --config.optim.milestones="(30,)"
    --config.train.fixbase_epochs=5 --config.loss.margin=3.0
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.ieee()
    config.data.dataset = "market1501_mm"
    return config
