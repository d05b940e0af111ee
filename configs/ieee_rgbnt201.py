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
--config.data.modalities="('rgb','nir')" 40.72 / 41.51. Any modality queries any other:
--config.eval.cross_modal=True; for methods that compare two modalities there is rgbnt201_c.
Deviations: 60 epochs and an evaluation after the last, where the authors run 61 and never evaluate the last one; an
epoch uses every image; labels are ascending identities.
"""

from ml_collections import ConfigDict

from configs.systems import ieee


def get_config() -> ConfigDict:
    config = ieee.ieee()
    config.data.update(dataset="rgbnt201", image_size=(256, 128), padding=0, flip=0.5, erasing=0.0)
    config.model.update(
        backbone="resnet50",
        cim=True,
        cim_attention=True,
        embed_dim=128,
        global_from="backbone",
        part_dim=768,
        parts=6,
        rem="code",
    )
    config.loss.update(label_smoothing=0.1, margin=1.0, name="margin", triplet_margin=0.3, weight_m=1.0, weight_x=1.0)
    config.optim.update(
        name="sgd",
        lr=0.001,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        schedule="multi_step",
        warmup_epochs=0,
        milestones=(20, 40),
        decay=0.1,
        epochs=60,
    )
    config.train.update(identities_per_batch=2, images_per_identity=4)
    config.eval.update(feature="whole")
    return config
