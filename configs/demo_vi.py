"""Visible-infrared ReID in minutes on two CPU cores: drawn people, a small ResNet, training, report.

    python main.py --config configs/demo_vi.py                     AGW
    python main.py --config configs/demo_vi.py:hetero_center       or base, ddag, caj, deen

The people are drawn in the layout of SYSU-MM01: four visible and two near-infrared cameras; nothing is downloaded. What
to expect: docs/results.md.
"""

from ml_collections import ConfigDict

from configs import agw_sysu, base_sysu, caj_sysu, ddag_sysu, deen_sysu, hc_sysu

METHODS = {
    "agw": agw_sysu,
    "base": base_sysu,
    "caj": caj_sysu,
    "ddag": ddag_sysu,
    "deen": deen_sysu,
    "hetero_center": hc_sysu,
}
# The trunk knows people already and learns slowly; what DEEN puts between its stages, and the strips of Hetero-Center
# after it, do not.
RATES = dict.fromkeys(("deen", "hetero_center"), (3e-3, 0.1))
"""Method -> learning rate, and the part of it at which the trunk learns; of the others 3e-4 and 1."""


def get_config(method: str = "agw") -> ConfigDict:
    if method not in METHODS:
        raise ValueError(f"there is no demo of {method!r}; choose one of {', '.join(METHODS)}")
    config = METHODS[method].get_config()
    config.data.drawn = True
    config.data.drawn_identities = 60
    config.data.image_size = (96, 48)
    config.data.padding = 4
    config.model.backbone = "resnet_mini"
    config.init.backbone = "drawn/resnet_mini_cross"
    if config.model.get("non_local"):
        config.model.non_local = ((2, 0), (3, 0))
    config.train.identities_per_batch, config.train.images_per_identity = 8, 4
    config.optim.name = "adamw"
    config.optim.lr, config.optim.base_lr_factor = RATES.get(method, (3e-4, 1.0))
    config.optim.weight_decay = 0.05
    config.optim.schedule = "cosine"
    config.optim.warmup_epochs = 2
    config.optim.epochs = 12
    config.train.eval_every = 4
    config.train.evaluate_first = True
    if method == "deen":
        config.optim.new_layers = ("^bottleneck/", "^classifier/", "expansion", "aggregation")
        # As the trunk has seen images.
        config.data.grey_of, config.data.erasing = (), 0.0
        # The other two copies, which begin at random, know less than the first one after so few epochs.
        config.eval.feature = "fc"
    if method == "hetero_center":
        # Of a map of six rows; and what an embedding learns of sixty people holds for others less than the strips do.
        config.model.strips, config.eval.feature = 2, "pool"
    return config
