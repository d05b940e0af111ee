"""The whole system in minutes on two CPU cores: drawn people, a small ViT, training, test-time training, report.

    python main.py --config configs/demo.py

Nothing is downloaded. The run draws people in the on-disk layout of RGBNT201, prepares them as a TFDS data set, trains
HTT from scratch, adapts it to the shifted test cameras and writes an HTML report. What to expect: docs/results.md.
"""

from ml_collections import ConfigDict

from configs.systems import htt


def get_config() -> ConfigDict:
    config = htt.htt()
    config.task = "train_adapt"
    config.data.drawn = True
    config.data.drawn_identities = 60
    config.data.drawn_images = 12
    config.data.image_size = (64, 32)
    config.data.padding = 3
    config.model.backbone = "vit_mini"
    config.model.drop_path = 0.0
    config.optim.name = "adamw"
    config.optim.lr = 2e-3
    config.optim.weight_decay = 0.05
    config.optim.bias_lr_factor = 1.0
    config.optim.schedule = "cosine"
    config.optim.epochs = 16
    config.train.eval_every = 4
    config.train.evaluate_first = True
    config.mtt.optim.epochs = 2
    config.eval.missing_modalities = True
    return config
