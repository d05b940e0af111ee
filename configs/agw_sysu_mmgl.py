"""AGW on SYSU-MM01 from MMGL's self-supervised weights instead of ImageNet's.

    python main.py --config configs/mmgl_sysu.py            pre-training, into runs/mmgl_sysu
    python main.py --config configs/agw_sysu_mmgl.py

Other weights: --config.init.from_mmgl=FILE, a run's workdir, a converted directory or a flat PyTorch file.
Published (README of MMGL), all-search, single-shot: rank-1 56.97, mAP 54.61. Known: nothing is frozen, rates and
schedule are those from ImageNet weights (``configs/agw_sysu.py``). In the authors' logs of DDAG the best runs take a
cosine, which is --config.optim.schedule=cosine here.
"""

from ml_collections import ConfigDict

from configs.systems import agw


def get_config() -> ConfigDict:
    config = agw.agw()
    config.data.update(dataset="sysu_mm01", image_size=(288, 144), padding=10, flip=0.5, erasing=0.0)
    config.model.update(
        backbone="resnet50",
        gem_power=3.0,
        non_local=((2, 2), (2, 3), (3, 3), (3, 4), (3, 5)),
        pooling="gem",
        shared_from=1,
    )
    config.loss.update(
        ce_weight=1.0,
        label_smoothing=0.0,
        triplet="weighted",
        triplet_form="code",
        triplet_margin=0.3,
        triplet_weight=1.0,
    )
    config.optim.update(
        name="sgd",
        lr=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        base_lr_factor=0.1,
        schedule="multi_step",
        warmup_epochs=10,
        milestones=(20, 50),
        decay=0.1,
        epochs=81,
    )
    config.train.update(identities_per_batch=8, images_per_identity=4)
    config.eval.update(feature="fc")
    config.init.from_mmgl = "runs/mmgl_sysu"
    return config
