"""HTT on RGBNT201: 171 training identities (train_171), three modalities, ViT-B/16, 256x128.

    python main.py --config configs/htt_rgbnt201.py --config.init.backbone=jx_vit_base_p16_224-80ecf9dd.pth

Without the data: add --config.data.drawn=True to run on drawn people in the same layout.
Published without test-time training (authors' README, AAAI 2024): mAP 69.0, rank-1 70.0, rank-5 80.5, rank-10 85.6.
The authors' own runs (folder names of their configs): mAP 68.5 to 70.0, rank-1 71.1 to 71.9.
All are the best epoch on the test set; we print the best and the last one.
Deviations: float32 instead of float16 autocast; the ImageNet weights are loaded, which the released loader skips.
Cost: a step holds 12.1 GiB (``python -m mmreid_jax complexity``, float32, compiled for a CPU).
"""

from ml_collections import ConfigDict

from configs.systems import htt


def get_config() -> ConfigDict:
    config = htt.htt()
    config.data.update(dataset="rgbnt201", image_size=(256, 128), padding=10, flip=0.0, erasing=0.5)
    config.model.update(backbone="vit_base", drop_path=0.1, head="linear")
    config.loss.update(
        ce_weight=1.0,
        cim_margin=0.5,
        cim_weight=0.5,
        label_smoothing=0.0,
        mmm_margin=1.0,
        mmm_weight=0.5,
        triplet_margin=-1.0,
        triplet_weight=1.0,
    )
    config.optim.update(
        name="sgd",
        lr=0.008,
        momentum=0.9,
        weight_decay=1e-4,
        bias_lr_factor=2.0,
        schedule="htt",
        warmup_epochs=5,
        epochs=80,
    )
    config.train.update(identities_per_batch=8, images_per_identity=4)
    config.eval.update(feature="after")
    return config
