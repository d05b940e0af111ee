"""HTT on Market1501-MM (Market-1501 with a generated thermal image, darkened RGB and grey as near infrared), 256x128.

    python main.py --config configs/htt_market1501_mm.py --config.init.backbone=jx_vit_base_p16_224-80ecf9dd.pth

Without the data: add --config.data.drawn=True to run on drawn people in the same layout.
Published, without test-time training (authors' README): mAP 65.9, rank-1 80.3, rank-5 95.4, rank-10 97.6.
No config is released for this data set; settings are those of RGBNT201.
"""

from ml_collections import ConfigDict

from configs.systems import htt


def get_config() -> ConfigDict:
    config = htt.htt()
    config.data.update(image_size=(256, 128), padding=10, flip=0.0, erasing=0.5)
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
    config.data.dataset = "market1501_mm"
    return config
