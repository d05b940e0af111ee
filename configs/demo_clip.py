"""DeMo and MDReID in minutes on two CPU cores: drawn people, a small transformer, training, all pairs of modalities.

    python main.py --config configs/demo_clip.py                 DeMo
    python main.py --config configs/demo_clip.py:mdreid

The data are those of configs/demo.py; nothing is downloaded. Both need a transformer's tokens: the trunk is a small one
that learnt from the ResNets in the package what they know of other drawn people. What to expect: docs/results.md.
"""

from ml_collections import ConfigDict

from configs import demo_moe_rgbnt201, mdreid_rgbnt201

METHODS = {"demo_moe": demo_moe_rgbnt201, "mdreid": mdreid_rgbnt201}


def get_config(method: str = "demo_moe") -> ConfigDict:
    if method not in METHODS:
        raise ValueError(f"there is no demo of {method!r}; choose one of {', '.join(METHODS)}")
    config = METHODS[method].get_config()
    config.data.drawn = True
    config.data.drawn_identities = 60
    config.data.drawn_images = 12
    config.data.image_size = (96, 48)
    config.data.padding = 4
    # As the trunk has seen images.
    config.data.mean, config.data.std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    config.model.backbone = "vit_mini"
    config.init.backbone = "drawn/vit_mini"
    config.train.identities_per_batch, config.train.images_per_identity = 8, 4
    # The triplet loss of raw features begins at 1.5 to 2.7 here. With the weight that it has beside CLIP's features it
    # is lowered fastest by making all of them alike, and MDReID's stay so.
    config.loss.ce_weight, config.loss.triplet_weight = 1.0, 0.1
    config.optim.name = "adamw"
    config.optim.lr = 1e-3
    config.optim.weight_decay = 0.05
    config.optim.bias_lr_factor = 1.0
    config.optim.base_lr_factor = 0.3
    config.optim.schedule = "cosine"
    config.optim.warmup_epochs = 2
    config.optim.epochs = 12
    config.train.eval_every = 4
    config.train.evaluate_first = True
    config.eval.all_pairs = True
    return config
