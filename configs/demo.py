"""The whole system in minutes on two CPU cores: drawn people, a small ResNet, training, test-time training, report.

    python main.py --config configs/demo.py

Nothing is downloaded. The run draws people in the on-disk layout of RGBNT201, prepares them as a TFDS data set, trains
HTT from a trunk that knows other drawn people, adapts it to the shifted test cameras and writes an HTML report. What to
expect: docs/results.md.
"""

from ml_collections import ConfigDict

from configs.systems import htt


def get_config() -> ConfigDict:
    config = htt.htt()
    config.task = "train_adapt"
    config.data.drawn = True
    config.data.drawn_identities = 60
    config.data.drawn_images = 12
    config.data.image_size = (96, 48)
    config.data.padding = 4
    config.data.flip = 0.5
    # As the trunk has seen images.
    config.data.mean, config.data.std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    config.model.backbone = "resnet_mini"
    config.init.backbone = "drawn/resnet_mini"
    config.optim.name = "adamw"
    config.optim.lr = 2e-4
    config.optim.weight_decay = 0.05
    config.optim.bias_lr_factor = 1.0
    config.optim.schedule = "cosine"
    config.optim.warmup_epochs = 2
    config.optim.epochs = 10
    config.train.eval_every = 5
    config.train.evaluate_first = True
    # A ResNet keeps its statistics, and 3M is left out: docs/results.md says why.
    config.mtt.statistics = "kept"
    config.mtt.mmm_weight = 0.0
    config.mtt.optim.lr = 3e-5
    config.mtt.optim.warmup_epochs = 0
    config.mtt.optim.epochs = 2
    config.eval.missing_modalities = True
    return config
