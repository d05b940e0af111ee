"""HTT, with test-time training."""

from ml_collections import ConfigDict

from configs import common


def htt() -> ConfigDict:
    """HTT on RGBNT201 as released; the other experiments change what differs."""
    config = ConfigDict()
    config.method = "htt"
    # train: train and evaluate; adapt: test-time training of config.init.checkpoint; train_adapt: one after the other.
    config.task = "train"
    config.seed = 1234
    # "released": every choice that the released program made where there is more than one, see docs/compare.md.
    config.parity = ""
    config.data = common.data()
    config.init = common.initial()
    config.model = ConfigDict(
        dict(
            backbone="vit_base",
            stride=0,  # distance of patches; 0: the patch size
            drop_path=0.1,
            side_camera=False,
            side_view=False,
            side_weight=3.0,
            last_stride=1,  # of a ResNet backbone
            num_classes=0,  # 0: number of training identities; 171 to load the released heads
            head="linear",  # or arcface, cosface, circle
            head_scale=30.0,
            head_margin=0.5,
            dtype="float32",  # or bfloat16
            remat=False,  # less memory, about 10 % more time
            attention="plain",  # or xla, cudnn (flash attention, bfloat16 on a GPU)
            unroll=1,
        )
    )
    config.loss = ConfigDict(
        dict(
            ce_weight=1.0,
            label_smoothing=0.0,
            triplet_weight=1.0,
            triplet_margin=-1.0,  # negative: soft margin
            mmm_weight=0.5,
            mmm_margin=1.0,
            cim_weight=0.5,
            cim_margin=0.5,
            center_weight=0.0,
            grouping="by_label",  # or "positional": the reference's chunks; equal on PK batches
        )
    )
    config.optim = common.optim()
    config.train = common.train()
    config.eval = common.evaluation_of_sets()
    config.mtt = ConfigDict(
        dict(
            form="code",  # or "paper": Algorithm 1, any batch size
            batch_size=2,
            mmm_weight=1.0,
            mmm_margin=1.0,
            cim_weight=1.0,
            cim_margin=1.0,
            episodic=False,  # start every query chunk from the trained weights again
            episode_size=64,  # queries per episode
            statistics="batch",  # of batch norms: each batch, which running ones follow; "kept": those of training
            reestimate_statistics=False,  # of the BNNeck, over the whole test set after each epoch
        )
    )
    config.mtt.optim = common.optim()
    config.mtt.optim.lr = 0.001
    config.mtt.optim.epochs = 6
    return config
