"""MMGL's pre-training."""

from ml_collections import ConfigDict

from configs.systems import visible_infrared


def mmgl() -> ConfigDict:
    """MMGL's pre-training on SYSU-MM01; the other experiments change what differs."""
    config = visible_infrared.visible_infrared()
    config.method = "mmgl"
    config.data.labels = False
    config.model = ConfigDict(
        dict(
            backbone="resnet50",  # resnet_micro for tests
            last_stride=1,
            shared_from=1,  # 1: a stem for each modality ("two-stream"), 0: one for both ("one-stream")
            stripes=6,
            stripe_gap=0,  # rows cut off at both ends of every stripe before it is moved
            shared_in_pair=True,  # the visible and the infrared image of a pair have the same order
            perm_head_hidden=0,  # width of a hidden layer in front of the order's logits; 0: none
            proj_dim=256,
            proj_head="conv_bn_relu",  # or conv: as the figure's label says
            proj_shared=False,  # one projection for the stripes of all positions
            num_classes=0,
            dtype="float32",  # or bfloat16
            remat=False,  # less memory, more time
        )
    )
    config.loss = ConfigDict(
        dict(
            perm_weight=1.0,  # 0: PCC alone
            perm_reduction="sum",  # over the entries of the matrix; or mean, as a library's MSE
            sinkhorn_iterations=20,
            sinkhorn_temperature=1.0,
            sinkhorn_noise=0.0,  # factor on Gumbel noise
            sinkhorn_samples=1,  # noisy copies that the loss is averaged over
            cl_weight=0.5,  # of PCC; 0: permutation recovery alone
            cl_temperature=0.07,
            cl_start=0,  # first step in which PCC counts
            cl_mode="parallel",  # or sequential, cycle_back
            cl_query="both",  # or visible, infrared
            retrieval_temperature=0.0,  # of the soft neighbours; 0: cl_temperature
            candidate_scope="batch",  # or pair: neighbours from the image of the same row of the batch alone
            negative_scope="batch",  # or pair
            exclude_self=False,  # a query is no neighbour of itself
            stop_gradient=False,  # neighbours are targets alone
        )
    )
    config.optim.schedule = "cosine"
    config.optim.epochs = 100
    # Without labels there is one identity, nobody; its images are the batch.
    config.train.sampler = "unpaired"
    config.train.identities_per_batch = 1
    config.train.images_per_identity = 32
    config.eval.feature = "pool"
    with config.eval.unlocked():
        config.eval.examined = 2000  # test images of each modality that the task is set on; 0: all
    config.train.eval_every = 5
    return config
