"""Multi-modal test-time training of HTT on RGBNT201: batches of 2, backbone only, 6 epochs over query and gallery.

    python main.py --config configs/htt_rgbnt201_mtt.py --config.init.checkpoint=runs/htt_rgbnt201

Published (authors' README, AAAI 2024): mAP 71.1, rank-1 73.4, rank-5 83.1, rank-10 87.3 (69.0 / 70.0 / 80.5 / 85.6
before). Query and gallery are the same folder, so every image is visited twice an epoch, as in the released code.
"""

from ml_collections import ConfigDict

from configs import htt_rgbnt201


def get_config() -> ConfigDict:
    config = htt_rgbnt201.get_config()
    config.mtt.update(form="code", batch_size=2, mmm_margin=1.0, cim_margin=1.0)
    config.mtt.optim.update(
        name="sgd", lr=0.001, momentum=0.9, weight_decay=1e-4, schedule="htt", warmup_epochs=5, epochs=6
    )
    config.task = "adapt"
    return config
