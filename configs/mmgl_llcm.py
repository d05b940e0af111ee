"""MMGL's pre-training without labels on LLCM: 16,946 visible and 13,975 infrared training images, 288x144.

    python main.py --config configs/mmgl_llcm.py

One-stream: --config.model.shared_from=0. The authors had no LLCM: nothing is published. What is known of their
pre-training and what is chosen: ``configs/mmgl_sysu.py``.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.mmgl()
    config.data.dataset = "llcm"
    return config
