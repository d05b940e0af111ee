"""DDAG on RGBNT201-C: 171 training identities, one ResNet-50 with a stem for each modality, 288x144.

    python main.py --config configs/ddag_rgbnt201_c.py --config.init.backbone=resnet50-19c8e357.pth

Visible and near-infrared images: --config.data.dataset=rgbnt201_c/rgb_nir.
Published (Wang et al., AAAI 2022, table 2), mAP / rank-1, visible to thermal 18.09 / 14.79, thermal to visible 20.01 /
18.05, with near-infrared images 21.39 / 20.37 and 24.76 / 21.66; on lists that are not public
(tfds_builders/rgbnt201_c/README.md), so these are not expected to be met. Schedules and ablations as in
``configs/ddag_sysu.py``.
"""

from ml_collections import ConfigDict

from configs.systems import ddag


def get_config() -> ConfigDict:
    config = ddag.ddag()
    config.data.update(image_size=(288, 144), padding=10, flip=0.5, erasing=0.0)
    config.model.update(
        backbone="resnet50",
        dropout=0.2,
        gem_power=3.0,
        graph=True,
        graph_dim=512,
        graph_heads=4,
        parts=3,
        pooling="avg",
        shared_from=1,
        wpa=True,
    )
    config.loss.update(
        ce_weight=1.0,
        graph_weight=-1.0,
        label_smoothing=0.0,
        part_weight=1.0,
        triplet="batch_hard",
        triplet_form="code",
        triplet_margin=0.3,
        triplet_weight=1.0,
    )
    config.optim.update(
        name="sgd",
        lr=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        base_lr_factor=0.1,
        schedule="multi_step",
        warmup_epochs=10,
        milestones=(30, 50),
        decay=0.1,
        epochs=81,
    )
    config.train.update(identities_per_batch=8, images_per_identity=4)
    config.eval.update(feature="fc_att")
    config.data.dataset = "rgbnt201_c/rgb_tir"
    return config
