"""MMGL's pre-training in minutes on two CPU cores: drawn people without labels, a small ResNet, three stripes, report.

    python main.py --config configs/demo_mmgl.py
    python main.py --config configs/demo_vi.py:base --config.model.backbone=resnet_micro --config.init.backbone= \\
        --config.init.from_mmgl=runs/demo_mmgl

The people are drawn in the layout of SYSU-MM01; nothing is downloaded. What to expect: docs/mmgl.md.
"""

from ml_collections import ConfigDict

from configs import mmgl_sysu


def get_config() -> ConfigDict:
    config = mmgl_sysu.get_config()
    config.data.drawn = True
    config.data.drawn_identities = 60
    # Two rows in the last map for each of three stripes.
    config.data.image_size = (96, 48)
    config.data.padding = 4
    config.model.backbone = "resnet_micro"
    config.model.stripes = 3
    config.model.proj_dim = 32
    config.optim.epochs = 40
    config.optim.warmup_epochs = 4
    config.train.eval_every = 10
    config.train.evaluate_first = True
    config.eval.examined = 500
    return config
