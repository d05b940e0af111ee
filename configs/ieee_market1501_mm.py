"""IEEE on Market1501-MM (Market-1501 with a generated thermal image, darkened RGB and grey as near infrared), 256x128.

    python main.py --config configs/ieee_market1501_mm.py --config.init.backbone=resnet50-19c8e357.pth

Without the data: add --config.data.drawn=True to run on drawn people in the same layout.
Published (Wang et al., AAAI 2022, table 1): mAP 64.32, rank-1 83.93, rank-5 92.96, rank-10 95.69.
Settings are those of RGBNT201. An old config of the authors' repository for this data set has batches of 32, 100
epochs, a step at 30, 5 epochs with the classifiers alone and margin 3:
    --config.train.identities_per_batch=8 --config.optim.epochs=100 --config.optim.milestones="(30,)"
    --config.train.fixbase_epochs=5 --config.loss.margin=3.0
"""

from ml_collections import ConfigDict

from configs.systems import ieee


def get_config() -> ConfigDict:
    config = ieee.ieee()
    config.data.update(image_size=(256, 128), padding=0, flip=0.5, erasing=0.0)
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
    config.data.dataset = "market1501_mm"
    return config
