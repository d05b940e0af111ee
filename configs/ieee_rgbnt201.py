"""IEEE on RGBNT201: 171 training identities (train_171), three modalities, a ResNet-50 each, 256x128.

    python main.py --config configs/ieee_rgbnt201.py --config.init.backbone=resnet50-19c8e357.pth

Without the data: add --config.data.drawn=True to run on drawn people in the same layout.
Published (Wang et al., AAAI 2022, table 1): mAP 46.42, rank-1 47.13, rank-5 58.49, rank-10 64.23; DeMo (2024) reports
47.5 / 44.4 / 57.1 / 63.6 for the same code. The paper says 141 training identities, the released config reads 171.
Ablation (table 3), mAP / rank-1:
    a  21.55 / 21.89  --config.loss.name=softmax --config.model.cim=False --config.model.rem=off
    b  31.94 / 30.26  --config.loss.name=softmax --config.model.rem=off
    c  39.24 / 39.59  --config.model.rem=off
    d  46.42 / 47.13  as it stands
Two modalities (table 2), mAP / rank-1: --config.data.modalities="('rgb','tir')" 40.41 / 40.79,
--config.data.modalities="('rgb','nir')" 40.72 / 41.51. RGBNT201-C, any modality queries any other:
--config.eval.cross_modal=True (the index files of the authors' archive are not read).
Deviations: 60 epochs and an evaluation after the last, where the authors run 61 and never evaluate the last one; an
epoch uses every image; labels are ascending identities.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    return common.ieee()
