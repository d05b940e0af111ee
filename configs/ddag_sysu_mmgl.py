"""DDAG on SYSU-MM01 from MMGL's self-supervised weights instead of ImageNet's.

    python main.py --config configs/mmgl_sysu.py            pre-training, into runs/mmgl_sysu
    python main.py --config configs/ddag_sysu_mmgl.py

Other weights: --config.init.from_mmgl=FILE, a run's workdir, a converted directory or a flat PyTorch file.
Published (README of MMGL), all-search, single-shot: rank-1 56.75, mAP 53.96; the authors' log of their best readable
run has 57.64 / 55.10 on one gallery. Known: nothing is frozen; that run takes a cosine to epoch 80 after the warm-up,
as here. The released code's steps: --config.optim.schedule=multi_step.
Cost: as ``configs/ddag_sysu.py``, after the pre-training's.
"""

from ml_collections import ConfigDict

from configs.systems import ddag


def get_config() -> ConfigDict:
    config = ddag.ddag()
    config.data.update(dataset="sysu_mm01", image_size=(288, 144), padding=10, flip=0.5, erasing=0.0)
    config.model.update(
        backbone="resnet50",
        dropout=0.2,
        gem_power=3.0,
        graph=True,
        graph_dim=512,
        graph_heads=4,
        parts=3,
        pooling="avg",
        shared_from=1,
        wpa=True,
    )
    config.loss.update(
        ce_weight=1.0,
        graph_weight=-1.0,
        label_smoothing=0.0,
        part_weight=1.0,
        triplet="batch_hard",
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
        warmup_epochs=10,
        epochs=81,
    )
    config.train.update(identities_per_batch=8, images_per_identity=4)
    config.eval.update(feature="fc_att")
    config.init.from_mmgl = "runs/mmgl_sysu"
    config.optim.schedule = "cosine"
    return config
