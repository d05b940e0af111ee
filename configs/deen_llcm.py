"""DEEN on LLCM, the data set of its paper: three embeddings of every image, 384x144.

    python main.py --config configs/deen_llcm.py --config.init.backbone=resnet50-19c8e357.pth

Published, rank-1 / mAP, on the first release of LLCM (paper): 54.9 / 62.9 infrared to visible, 62.5 / 65.8 visible to
infrared; on today's (README of LLCM): 55.52 / 62.07 infrared to visible; "visible to infrared" 69.21 / 55.52 with the
roles of query and gallery swapped, which is the protocol llcm_vis_to_ir_repo.
Settings as in ``configs/deen_sysu.py``, with smaller rectangles erased.
"""

from ml_collections import ConfigDict

from configs.systems import deen


def get_config() -> ConfigDict:
    config = deen.on_llcm(deen.deen())
    config.data.update(
        dataset="llcm",
        image_size=(384, 144),
        padding=10,
        flip=0.5,
        grey_of=(("rgb", 0.5), ("nir", 0.5)),
        erasing=0.5,
        erasing_form="torchreid",
        erasing_area=(),
    )
    config.model.update(backbone="resnet50", dropout=0.01, expanded=3)
    config.loss.update(
        ce_weight=1.0,
        cpm_margin=0.2,
        cpm_weight=0.8,
        grouping="by_label",
        label_smoothing=0.0,
        orthogonality_weight=0.01,
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
        milestones=(20, 80),
        decay=0.1,
        epochs=151,
    )
    config.train.update(identities_per_batch=6, images_per_identity=4)
    config.eval.update(feature="all", mirror=True, weights=(1.0, 1.0))
    return config
