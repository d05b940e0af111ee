"""MMGL's pre-training without labels on SYSU-MM01: 22,258 visible and 11,909 infrared training images, 288x144.

    python main.py --config configs/mmgl_sysu.py                            two-stream: a stem for each modality
    python main.py --config configs/mmgl_sysu.py --config.model.shared_from=0      one-stream: one stem for both

Then supervised, from what was learnt: ``configs/agw_sysu_mmgl.py``, ``configs/ddag_sysu_mmgl.py``, or any
visible-infrared config with --config.init.from_mmgl=runs/mmgl_sysu. Without the data: add --config.data.drawn=True.

Known of the authors' pre-training, whose code was never released: from random weights, six stripes, one order for
both images of a pair, a 36-way linear layer, 20 Sinkhorn iterations, squared error; stripes projected to 256
dimensions, soft neighbours of the same query in both modalities as positives, temperature 0.07, weight 0.2 to 1 (0.5
in the best readable run), rate 0.1, usually 100 epochs. Published accuracy of the recovered order: 98.6 % two-stream,
97.5 % one-stream.
Chosen here: everything else, above all the batch (32 + 32 unrelated images), the augmentation and the schedule (those
of fine-tuning), neighbours and negatives from the whole batch, the squared error summed over the matrix. Each choice
is an option of ``config.model`` or ``config.loss``; reasons and measurements: ``docs/mmgl.md``.
Cost (README of MMGL, one 2080Ti or 3080Ti): six hours, 12 GB.
"""

from ml_collections import ConfigDict

from configs.systems import mmgl


def get_config() -> ConfigDict:
    config = mmgl.mmgl()
    config.data.update(dataset="sysu_mm01", image_size=(288, 144), padding=10, flip=0.5, erasing=0.0, labels=False)
    config.model.update(
        backbone="resnet50", proj_dim=256, proj_head="conv_bn_relu", shared_from=1, shared_in_pair=True, stripes=6
    )
    config.loss.update(
        candidate_scope="batch",
        cl_mode="parallel",
        cl_query="both",
        cl_temperature=0.07,
        cl_weight=0.5,
        negative_scope="batch",
        perm_reduction="sum",
        perm_weight=1.0,
        sinkhorn_iterations=20,
        sinkhorn_samples=1,
        sinkhorn_temperature=1.0,
    )
    config.optim.update(
        name="sgd",
        lr=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        schedule="cosine",
        warmup_epochs=10,
        epochs=100,
    )
    config.train.update(identities_per_batch=1, images_per_identity=32, sampler="unpaired")
    config.eval.update(feature="pool")
    return config
