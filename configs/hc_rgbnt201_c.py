"""Hetero-Center on RGBNT201-C: 171 training identities, a ResNet-50 for each modality, six strips, 288x144.

    python main.py --config configs/hc_rgbnt201_c.py --config.init.backbone=resnet50-19c8e357.pth

Visible and near-infrared images: --config.data.dataset=rgbnt201_c/rgb_nir.
Published (Wang et al., AAAI 2022, table 2), mAP / rank-1, visible to thermal 16.74 / 14.25, thermal to visible 16.53 /
19.32, with near-infrared images 20.54 / 22.19 and 21.80 / 22.93; on lists that are not public
(tfds_builders/rgbnt201_c/README.md), so these are not expected to be met. Settings, features and deviations as in
``configs/hc_sysu.py``.
"""

from ml_collections import ConfigDict

from configs.systems import hetero_center


def get_config() -> ConfigDict:
    config = hetero_center.hetero_center()
    config.data.update(image_size=(288, 144), padding=0, flip=0.5, erasing=0.0)
    config.model.update(backbone="resnet50", embed_dim=512, strips=6)
    config.loss.update(ce_weight=1.0, distance="l2", hc_weight=0.5, label_smoothing=0.0)
    config.optim.update(
        name="sgd",
        lr=0.01,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        schedule="multi_step",
        warmup_epochs=0,
        milestones=(30, 60),
        decay=0.1,
        epochs=61,
    )
    config.train.update(identities_per_batch=4, images_per_identity=8)
    config.eval.update(feature="fc")
    config.data.dataset = "rgbnt201_c/rgb_tir"
    return config
