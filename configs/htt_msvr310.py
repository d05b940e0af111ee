"""HTT on MSVR310: 155 training vehicles, three modalities, ViT-B/16, 128x256, batch 64.

    python main.py --config configs/htt_msvr310.py --config.init.backbone=jx_vit_base_p16_224-80ecf9dd.pth

Without the data: add --config.data.drawn=True to run on drawn vehicles in the same layout.
No HTT result is published for MSVR310 (for orientation: TOP-ReID mAP 35.9, rank-1 44.6 in IDEA's table). Settings are
those of RGBNT100. The protocol removes gallery images of the query's identity and scene; cameras are not used.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.htt()
    config.data.dataset = "msvr310"
    config.data.image_size = (128, 256)
    config.train.identities_per_batch = 16
    config.optim.epochs = 90
    return config
