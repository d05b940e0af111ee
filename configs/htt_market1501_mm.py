"""HTT on Market1501-MM (Market-1501 with a generated thermal image, darkened RGB and grey as near infrared), 256x128.

    python main.py --config configs/htt_market1501_mm.py --config.init.backbone=jx_vit_base_p16_224-80ecf9dd.pth

Without the data: add --config.data.drawn=True to run on drawn people in the same layout.
Published, without test-time training (authors' README): mAP 65.9, rank-1 80.3, rank-5 95.4, rank-10 97.6.
No config is released for this data set; settings are those of RGBNT201.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.htt()
    config.data.dataset = "market1501_mm"
    return config
