"""Hetero-Center on SYSU-MM01: 395 training identities, a ResNet-50 for each modality, six strips, 288x144.

    python main.py --config configs/hc_sysu.py --config.init.backbone=resnet50-19c8e357.pth

Without the data: add --config.data.drawn=True to run on drawn people in the same layout.
Published (README of the authors' code), all-search single-shot: rank-1 about 56, mAP about 54. Later papers quote
56.96 / 54.95, and 59.74 / 64.91 for indoor-search. Which of the two features the numbers are of is not said;
checkpoints are selected by ``fc``, here as there. Cross-entropy alone: --config.loss.hc_weight=0
Deviations: the authors' sampler loses the first batch of every epoch and trains on the second one twice
(--config.train.sampler=hetero_center does); their gallery draws follow one stream of random numbers, ours are seeded by
the trial as in the papers after it (--config.eval.protocol=sysu_all_single_hetero_center). Padding by 10 pixels before
the crop, which later papers add: --config.data.padding=10
"""

from ml_collections import ConfigDict

from configs.systems import hetero_center


def get_config() -> ConfigDict:
    config = hetero_center.hetero_center()
    config.data.update(dataset="sysu_mm01", image_size=(288, 144), padding=0, flip=0.5, erasing=0.0)
    config.model.update(backbone="resnet50", embed_dim=512, strips=6)
    config.loss.update(ce_weight=1.0, distance="l2", hc_weight=0.5, label_smoothing=0.0)
    config.optim.update(
        name="sgd",
        lr=0.01,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        schedule="multi_step",
        warmup_epochs=0,
        milestones=(30, 60),
        decay=0.1,
        epochs=61,
    )
    config.train.update(identities_per_batch=4, images_per_identity=8)
    config.eval.update(feature="fc")
    return config
