"""IEEE in minutes on two CPU cores: drawn people, three small ResNets, training, report.

    python main.py --config configs/demo_ieee.py

The data are those of configs/demo.py; nothing is downloaded. What to expect: docs/results.md.
"""

from ml_collections import ConfigDict

from configs.systems import ieee


def get_config() -> ConfigDict:
    config = ieee.ieee()
    config.data.drawn = True
    config.data.drawn_identities = 60
    config.data.drawn_images = 12
    # Six rows in the last map, one for each part.
    config.data.image_size = (96, 48)
    config.data.padding = 4
    config.model.backbone = "resnet_mini"
    config.init.backbone = "drawn/resnet_mini"
    config.model.part_dim = 128
    config.model.embed_dim = 32
    config.optim.name = "adamw"
    config.optim.lr = 1e-3
    config.optim.weight_decay = 0.05
    config.optim.schedule = "cosine"
    config.optim.warmup_epochs = 2
    config.optim.epochs = 12
    config.train.identities_per_batch = 8
    config.train.eval_every = 4
    config.train.evaluate_first = True
    return config
