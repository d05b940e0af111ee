"""DeMo on MSVR310: CLIP's ViT-B/16, experts for each of eight heads, a head for every modality, 128x256, batch 64.

    python main.py --config configs/demo_moe_msvr310.py --config.init.backbone=ViT-B-16.pt

Without the data: add --config.data.drawn=True to run on drawn vehicles in the same layout.
Published (authors' README), mAP / rank-1: 49.2 / 59.8. The protocol removes gallery images of the query's identity and
scene. Deviations as in ``configs/demo_moe_rgbnt201.py``.
"""

from ml_collections import ConfigDict

from configs.systems import demo_moe


def get_config() -> ConfigDict:
    config = demo_moe.demo_moe()
    config.data.update(dataset="msvr310", image_size=(128, 256), padding=10, flip=0.5, erasing=0.5)
    config.model.update(
        backbone="clip_vit_b16_projected", side_weight=1.0, fusion="experts", heads=8, dropout=0.1, joint_head=False
    )
    config.loss.update(ce_weight=0.25, label_smoothing=0.1, triplet_weight=1.0)
    config.optim.update(
        name="adam",
        lr=3.5e-4,
        base_lr_factor=1 / 70,
        bias_lr_factor=2.0,
        weight_decay=1e-4,
        schedule="shared_ends",
        warmup_epochs=10,
        warmup_start=0.1,
        minimum=0.001,
        noise=0.67,
        epochs=50,
    )
    config.train.update(identities_per_batch=16, images_per_identity=4)
    config.eval.update(feature="all")
    return config
