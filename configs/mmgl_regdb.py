"""MMGL's pre-training without labels on RegDB: 2,060 visible and 2,060 thermal training images, 288x144.

    python main.py --config configs/mmgl_regdb.py

Each of the ten splits has its own training half, and a model must not see the other: pre-train split 2 with
--config.data.dataset=regdb/trial_2, and so on. One-stream: --config.model.shared_from=0. What is known of the authors'
pre-training and what is chosen: ``configs/mmgl_sysu.py``. An epoch has 64 steps, so the 100 epochs are a tenth of the
steps on SYSU-MM01; --config.optim.epochs=1000 for as many.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.mmgl()
    config.data.dataset = "regdb"
    return config
