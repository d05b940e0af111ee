"""AGW on SYSU-MM01 from MMGL's self-supervised weights instead of ImageNet's.

    python main.py --config configs/mmgl_sysu.py            pre-training, into runs/mmgl_sysu
    python main.py --config configs/agw_sysu_mmgl.py

Other weights: --config.init.from_mmgl=FILE, a run's workdir, a converted directory or a flat PyTorch file.
Published (README of MMGL), all-search, single-shot: rank-1 56.97, mAP 54.61. Known: nothing is frozen, rates and
schedule are those from ImageNet weights (``configs/agw_sysu.py``). In the authors' logs of DDAG the best runs take a
cosine, which is --config.optim.schedule=cosine here.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.agw()
    config.init.from_mmgl = "runs/mmgl_sysu"
    return config
