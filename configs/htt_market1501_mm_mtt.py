"""Multi-modal test-time training of HTT on Market1501-MM: 6 epochs over query and gallery.

    python main.py --config configs/htt_market1501_mm_mtt.py --config.init.checkpoint=runs/htt_market1501_mm

Published (authors' README): mAP 67.2, rank-1 81.5, rank-5 95.8, rank-10 97.8.
No config is released for this data set; settings are those of RGBNT201.
"""

from ml_collections import ConfigDict

from configs import htt_market1501_mm


def get_config() -> ConfigDict:
    config = htt_market1501_mm.get_config()
    config.mtt.update(form="code", batch_size=2, mmm_margin=1.0, cim_margin=1.0)
    config.mtt.optim.update(
        name="sgd", lr=0.001, momentum=0.9, weight_decay=1e-4, schedule="htt", warmup_epochs=5, epochs=6
    )
    config.task = "adapt"
    return config
