"""Multi-modal test-time training of HTT on MSVR310: 6 epochs over query and gallery.

    python main.py --config configs/htt_msvr310_mtt.py --config.init.checkpoint=runs/htt_msvr310

No HTT result is published for MSVR310; settings are those of RGBNT201.
"""

from ml_collections import ConfigDict

from configs import htt_msvr310


def get_config() -> ConfigDict:
    config = htt_msvr310.get_config()
    config.mtt.update(form="code", batch_size=2, mmm_margin=1.0, cim_margin=1.0)
    config.mtt.optim.update(
        name="sgd", lr=0.001, momentum=0.9, weight_decay=1e-4, schedule="htt", warmup_epochs=5, epochs=6
    )
    config.task = "adapt"
    return config
