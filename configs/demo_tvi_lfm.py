"""TVI-LFM in minutes on two CPU cores: drawn people with captions, a small ResNet, a small text tower, report.

    python main.py --config configs/demo_tvi_lfm.py:base --workdir runs/demo_tvi_lfm_base
    python main.py --config configs/demo_tvi_lfm.py:text --workdir runs/demo_tvi_lfm

The people are drawn in the layout of SYSU-MM01, their captions in that of Tri-SYSU-MM01; nothing is downloaded. The
second command takes over the base model of the first, and a text tower that has read captions of other drawn people, as
CLIP's has read those of the web. What to expect: docs/tvi_lfm.md.
"""

from ml_collections import ConfigDict

from configs import tvi_base_sysu, tvi_sysu

STAGES = {"base": tvi_base_sysu, "text": tvi_sysu}


def get_config(stage: str = "base") -> ConfigDict:
    if stage not in STAGES:
        raise ValueError(f"there is no stage {stage!r} of TVI-LFM; choose one of {', '.join(STAGES)}")
    config = STAGES[stage].get_config()
    config.data.drawn = True
    config.data.drawn_identities = 60
    config.data.image_size = (96, 48)
    config.data.padding = 4
    config.model.backbone = "resnet_mini"
    config.model.text_tower = "text_mini"
    config.optim.lr = 1e-3
    config.optim.warmup_epochs = 2
    config.optim.schedule = "cosine"
    config.optim.epochs = 12
    config.train.eval_every = 4
    config.train.evaluate_first = True
    if stage == "text":
        config.init.from_base = "runs/demo_tvi_lfm_base"
        config.init.clip = "drawn/text_mini"
    else:
        config.init.backbone = "drawn/resnet_mini_cross"
    return config
