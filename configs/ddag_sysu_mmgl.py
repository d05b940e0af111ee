"""DDAG on SYSU-MM01 from MMGL's self-supervised weights instead of ImageNet's.

    python main.py --config configs/mmgl_sysu.py            pre-training, into runs/mmgl_sysu
    python main.py --config configs/ddag_sysu_mmgl.py

Other weights: --config.init.from_mmgl=FILE, a run's workdir, a converted directory or a flat PyTorch file.
Published (README of MMGL), all-search, single-shot: rank-1 56.75, mAP 53.96; the authors' log of their best readable
run has 57.64 / 55.10 on one gallery. Known: nothing is frozen; that run takes a cosine to epoch 80 after the warm-up,
as here. The released code's steps: --config.optim.schedule=multi_step.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.ddag()
    config.init.from_mmgl = "runs/mmgl_sysu"
    config.optim.schedule = "cosine"
    return config
