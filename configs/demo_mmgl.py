"""MMGL's pre-training in minutes on two CPU cores: drawn people without labels, a small ResNet, three stripes, report.

    python main.py --config configs/demo_mmgl.py
    python main.py --config configs/demo_vi.py:base --config.init.backbone= --config.init.from_mmgl=runs/demo_mmgl \\
        --config.optim.lr=2e-3 --workdir runs/demo_vi_from_mmgl

The people are drawn in the layout of SYSU-MM01; nothing is downloaded. What to expect: docs/mmgl.md.
"""

from ml_collections import ConfigDict

from configs import mmgl_sysu

SUPERVISED_LR = 2e-3
"""Of Base upon it and upon random weights, which hardly learn at 3e-4, the rate of a trunk that knows people."""


def get_config() -> ConfigDict:
    config = mmgl_sysu.get_config()
    config.data.drawn = True
    config.data.drawn_identities = 60
    # Two rows in the last map for each of three stripes.
    config.data.image_size = (96, 48)
    config.data.padding = 4
    config.model.backbone = "resnet_mini"
    config.model.stripes = 3
    config.model.proj_dim = 32
    # With the SGD of the published size the orders are still near chance after 12 epochs, with AdamW all but learnt.
    config.optim.name = "adamw"
    config.optim.lr = 2e-3
    config.optim.weight_decay = 0.05
    config.optim.epochs = 20
    config.optim.warmup_epochs = 2
    config.train.eval_every = 10
    config.train.evaluate_first = True
    config.eval.examined = 500
    return config
