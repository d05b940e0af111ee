"""MMGL's pre-training without labels on LLCM: 16,946 visible and 13,975 infrared training images, 288x144.

    python main.py --config configs/mmgl_llcm.py

One-stream: --config.model.shared_from=0. The authors had no LLCM: nothing is published. What is known of their
pre-training and what is chosen: ``configs/mmgl_sysu.py``.
"""

from ml_collections import ConfigDict

from configs.systems import mmgl


def get_config() -> ConfigDict:
    config = mmgl.mmgl()
    config.data.update(image_size=(288, 144), padding=10, flip=0.5, erasing=0.0, labels=False)
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
    config.data.dataset = "llcm"
    return config
