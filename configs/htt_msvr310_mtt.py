"""Multi-modal test-time training of HTT on MSVR310: 6 epochs over query and gallery.

    python main.py --config configs/htt_msvr310_mtt.py --config.init.checkpoint=runs/htt_msvr310

No HTT result is published for MSVR310; settings are those of RGBNT201.
"""

from ml_collections import ConfigDict

from configs import htt_msvr310


def get_config() -> ConfigDict:
    config = htt_msvr310.get_config()
    config.task = "adapt"
    return config
