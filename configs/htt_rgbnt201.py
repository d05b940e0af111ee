"""HTT on RGBNT201: 171 training identities (train_171), three modalities, ViT-B/16, 256x128.

    python main.py --config configs/htt_rgbnt201.py --config.init.backbone=jx_vit_base_p16_224-80ecf9dd.pth

Without the data: add --config.data.drawn=True to run on drawn people in the same layout.
Published without test-time training (authors' README, AAAI 2024): mAP 69.0, rank-1 70.0, rank-5 80.5, rank-10 85.6.
The authors' own runs (folder names of their configs): mAP 68.5 to 70.0, rank-1 71.1 to 71.9.
All are the best epoch on the test set; we print the best and the last one.
Deviations: float32 instead of float16 autocast; the ImageNet weights are loaded, which the released loader skips.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    return common.htt()
