"""Fragments shared by the experiment configs: every key with its type, its meaning and a sensible default."""

import os

from ml_collections import ConfigDict


def data() -> ConfigDict:
    """Where the data lie and how images are prepared."""
    return ConfigDict(
        dict(
            dataset="rgbnt201",
            modalities=(),  # of the data set, by name; empty: all that it has
            # Prepared data sets (TFDS), decoded images and drawn data live here; MMREID_DATA sets it for all commands.
            data_dir=os.environ.get("MMREID_DATA", "data"),
            # The unpacked original data set, needed once; empty: DATA_DIR/manual.
            manual_dir="",
            # Train on part of the training split: a folder or a text file that names its files. A folder of the
            # original data set, "train_141" of RGBNT201, is found beside the others. Empty: on all of it.
            train_list="",
            # Use drawn people or vehicles in the layout of the data set instead of the real images.
            drawn=False,
            drawn_identities=0,  # per split; 0: the default of the generator
            drawn_images=0,  # per identity; 0: the default of the generator
            drawn_shift=-1.0,  # 0..1, how far test cameras differ from training cameras; negative: the default
            drawn_seed=0,
            image_size=(256, 128),  # height, width
            interpolation="bicubic",  # of training images: bilinear, bicubic, lanczos; all antialiased
            eval_interpolation="bilinear",
            padding=10,  # pixels of zeros around the image before the random crop
            flip=0.0,  # probability of a horizontal flip
            erasing=0.5,  # probability of random erasing
            erasing_form="timm",  # noise in rectangles of timm's shapes; "torchreid": its shapes, filled with the mean
            erasing_of=(),  # where one view differs: (("nir", 0.5),); a second view is called rgb_2
            erasing_fill=(),  # value of each channel, put in after normalisation; empty: as erasing_form says
            labels=True,  # False: training sees no identity; for methods that learn without labels
            second_views=(),  # modalities that come twice, augmented independently: rgb also as rgb_2
            grey_of=(),  # probability of taking the colours of a view away: (("rgb", 0.1),)
            # Captions of visible-infrared data (sysu_mm01, regdb, llcm), from the folder Text beside the images.
            text=False,  # False: no text is read or needed
            captioner="Blip",  # whose captions, as in the name of their folder
            rephrased=0.5,  # probability that a training caption gives way to its rephrasing
            # How the visible caption of a query is drawn, once for a run: "counter", or "reference": with the random
            # numbers of the released code, which gives its queries their very captions.
            caption_draw="counter",
            caption_seed=1,
            random_crop=0.0,  # probability of enlarging by an eighth and cropping; 0.5 is torchreid's random_crop
            brightness=0.0,  # largest change; 0.2 with contrast 0.15 is torchreid's color_jitter
            contrast=0.0,
            shared_augmentation=False,  # True: all modalities of a sample share crop, flip and erasing
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            rgbnt100_third="thermal",  # or "reference": the released code's crop of NIR and TIR together
            rgbn300_third="",  # "reference": NIR once more as third modality, as the released code feeds it
            broken_images="error",  # "skip": leave out and report; "truncated": take what is there
            value_range=(),  # (low, high) of images of more than 8 bits; empty: from percentiles of each image
            # Decoded images are uploaded once and batches only name them; they equal the host's to the bit. "auto": on
            # accelerators where the images fit a third of the memory; "on", "off".
            on_device="auto",
            cache_gib=8.0,  # decoded images are kept on disk up to this size; 0: decode in every epoch
            threads=2,
            workers=0,  # processes; worth it on machines with many cores
        )
    )


def optim() -> ConfigDict:
    """Optimiser and schedule; the defaults are HTT's."""
    return ConfigDict(
        dict(
            name="sgd",  # sgd, adam, adamw, amsgrad, rmsprop, radam
            lr=0.008,
            momentum=0.9,  # of sgd and rmsprop
            nesterov=False,
            beta1=0.9,  # of adam and its kin
            beta2=0.999,
            alpha=0.99,  # of rmsprop
            weight_decay=1e-4,
            bias_lr_factor=2.0,
            new_layers=(),  # patterns of parameters at the full rate, all others at base_lr_factor; empty: no stages
            base_lr_factor=0.1,
            schedule="htt",  # htt, cosine, cosine_per_step, multi_step, single_step, constant
            warmup_epochs=5,
            milestones=(40, 70),  # epochs, for multi_step; single_step falls every milestones[-1] epochs
            decay=0.1,  # for multi_step and single_step
            clip_norm=0.0,  # 0: no clipping
            epochs=80,
        )
    )


def train() -> ConfigDict:
    """The training loop."""
    return ConfigDict(
        dict(
            identities_per_batch=8,
            images_per_identity=4,
            # "reference": the draw order of the released codes; "hetero_center": that of its code, whose first batch of
            # an epoch is lost to the second; "cameras", "scenes": not identities but cameras or scenes share the batch
            # evenly, identities_per_batch of them with images_per_identity each, as in torchreid; "unpaired": unrelated
            # images of both modalities, without labels
            sampler="counter",
            replacement=False,  # visible-infrared data: the images of an identity are drawn with replacement
            micro_batches=1,  # cut the batch for the backbone to save memory; losses still see the whole batch
            eval_every=5,  # epochs
            evaluate_first=False,  # also score the untrained network
            checkpoint_every=1,  # epochs
            log_every=10,  # steps
            # Steps in one compiled call, while nothing on the host is due between them (log line, evaluation,
            # checkpoint): a divisor of log_every. Worth it where a step takes a few milliseconds.
            steps_per_call=1,
            profile=0,  # trace so many steps after the first ones into WORKDIR/profile, for TensorBoard and Perfetto
            compilation_cache=True,
            compiler="auto",  # XLA's options that are fastest on this backend; "plain": its defaults
        )
    )


def evaluation() -> ConfigDict:
    """Retrieval and the report."""
    return ConfigDict(
        dict(
            feature="after",  # the BNNeck; "before": the concatenation itself
            batch_size=64,
            distance="",  # squared_euclidean, euclidean or cosine; empty: that of the protocol
            normalize=True,  # compare features of length one
            protocol="",  # empty: that of the data set; "all": every protocol of the data set
            single_shot=False,  # CMC of ten draws of one gallery image per identity, as for CUHK03
            rerank=False,
            rerank_k1=50,
            rerank_k2=15,
            rerank_lambda=0.3,
            rerank_distance="euclidean",  # is squared; "squared_euclidean": squared twice, as torchreid does
            missing_modalities=False,  # also evaluate the six combinations of absent modalities
            report=True,
            visrank=False,  # also draw every query's ranked list, one picture each, into figures/ranked_lists
            visrank_topk=10,  # gallery samples in a ranked list
            embedding_identities=8,  # test identities in the report's t-SNE picture of the features; 0: no picture
            embedding_scale=False,  # stretch every modality's points to the same square, so that they overlie
        )
    )


def initial() -> ConfigDict:
    """Weights to start from."""
    return ConfigDict(
        dict(
            backbone="",  # ImageNet weights: a PyTorch or safetensors file, or a directory made by mmreid_jax.convert
            # A trunk pre-trained by MMGL, for visible-infrared methods: its workdir, a converted directory or a flat
            # PyTorch file. Takes the place of `backbone`.
            from_mmgl="",
            # The base model of TVI-LFM's text stage: its workdir, a converted directory or the authors' file. Takes the
            # place of `backbone`.
            from_base="",
            clip="",  # CLIP's weights for a text tower: OpenAI's or Hugging Face's file, or a converted directory
            checkpoint="",  # a whole trained model: a run's workdir, or a directory made by mmreid_jax.convert
            which="best",  # or "last": of a workdir's checkpoints
        )
    )


def htt() -> ConfigDict:
    """HTT on RGBNT201 as released; the other experiments change what differs."""
    config = ConfigDict()
    config.method = "htt"
    # train: train and evaluate; adapt: test-time training of config.init.checkpoint; train_adapt: one after the other.
    config.task = "train"
    config.seed = 1234
    config.data = data()
    config.init = initial()
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
    config.optim = optim()
    config.train = train()
    config.eval = evaluation()
    config.mtt = ConfigDict(
        dict(
            form="code",  # or "paper": Algorithm 1, any batch size
            batch_size=2,
            mmm_margin=1.0,
            cim_margin=1.0,
            episodic=False,  # start every query chunk from the trained weights again
            episode_size=64,  # queries per episode
            reestimate_statistics=False,  # of the BNNeck, over the whole test set after each epoch
        )
    )
    config.mtt.optim = optim()
    config.mtt.optim.lr = 0.001
    config.mtt.optim.epochs = 6
    return config


def ieee() -> ConfigDict:
    """IEEE on RGBNT201 as released; the other experiments change what differs."""
    config = ConfigDict()
    config.method = "ieee"
    config.task = "train"
    config.seed = 40
    config.data = data()
    config.data.interpolation = "bilinear"
    config.data.padding = 0
    config.data.flip = 0.5
    config.data.erasing = 0.0
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.init = initial()
    config.model = ConfigDict(
        dict(
            backbone="resnet50",  # one for each modality; resnet_micro for tests
            last_stride=1,
            parts=6,
            part_dim=768,
            embed_dim=128,
            cim=True,  # cross-modal interacting module
            cim_attention=True,  # channel attention inside of it
            rem="code",  # relation-based embedding module; "paper" or "off"
            global_from="backbone",  # as released; "cim": as the paper says
            num_classes=0,  # 0: number of training identities; 171 to load the released heads
            streams="loop",  # run the modalities one after the other, or stacked by "vmap": the same numbers
            dtype="float32",  # or bfloat16
            remat=False,  # less memory, more time
        )
    )
    config.loss = ConfigDict(
        dict(
            name="margin",  # cross-entropy and 3M; "softmax": cross-entropy alone; "triplet", "hcloss" beside it
            weight_x=1.0,  # of the cross-entropy, summed over parts and modalities
            weight_m=1.0,  # of the other loss
            margin=1.0,  # of 3M
            triplet_margin=0.3,
            label_smoothing=0.1,
            grouping="by_label",  # or "positional": the reference's chunks; equal on PK batches
        )
    )
    config.optim = optim()
    config.optim.lr = 0.001
    config.optim.nesterov = True
    config.optim.weight_decay = 5e-4
    config.optim.bias_lr_factor = 1.0
    config.optim.schedule = "multi_step"
    config.optim.warmup_epochs = 0
    config.optim.milestones = (20, 40)
    config.optim.epochs = 60
    config.train = train()
    config.train.identities_per_batch = 2
    config.train.images_per_identity = 4
    config.train.fixbase_epochs = 0  # first epochs, in which open_layers train alone
    config.train.open_layers = ("classifier",)  # backbone, own, rest, attention, reduce, relation, embed, classifier
    config.train.eval_every = 6
    config.eval = evaluation()
    config.eval.feature = "whole"
    config.eval.normalize = False
    config.eval.cross_modal = False  # also let every modality query every other one
    config.eval.rerank_k1 = 20
    config.eval.rerank_k2 = 6
    config.eval.rerank_distance = "squared_euclidean"
    return config


def visible_infrared() -> ConfigDict:
    """What the visible-infrared systems share, as the AGW family sets it; each adds its method, model and loss."""
    config = ConfigDict()
    config.task = "train"
    config.seed = 0
    config.data = data()
    config.data.dataset = "sysu_mm01"
    config.data.image_size = (288, 144)
    config.data.interpolation = "lanczos"
    config.data.eval_interpolation = "lanczos"
    config.data.flip = 0.5
    config.data.erasing = 0.0
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.init = initial()
    config.optim = optim()
    config.optim.lr = 0.1
    config.optim.nesterov = True
    config.optim.weight_decay = 5e-4
    config.optim.bias_lr_factor = 1.0
    config.optim.schedule = "multi_step"
    config.optim.warmup_epochs = 10  # epoch e of them at (e + 1)/10
    config.optim.milestones = (20, 50)
    config.optim.epochs = 81
    config.train = train()
    config.train.replacement = True
    config.train.eval_every = 2
    config.eval = evaluation()
    config.eval.feature = "fc"
    return config


def base() -> ConfigDict:
    """The Base network of the AGW family on SYSU-MM01; the other experiments change what differs."""
    config = visible_infrared()
    config.method = "agw"
    config.model = ConfigDict(
        dict(
            backbone="resnet50",  # resnet_micro for tests
            last_stride=1,
            # Parts of the network that each modality has for itself, counted from the stem: 0 none, 1 the stem, ...,
            # 5 all. The published checkpoints have 1.
            shared_from=1,
            non_local=(),  # (stage, block) of the blocks that a non-local block follows
            pooling="avg",  # or "gem": generalised mean
            gem_power=3.0,
            num_classes=0,  # 0: number of training identities
            dtype="float32",  # or bfloat16
            remat=False,  # less memory, more time
        )
    )
    config.loss = ConfigDict(
        dict(
            ce_weight=1.0,
            label_smoothing=0.0,
            triplet="batch_hard",  # or "weighted": AGW's weighted regularised triplet
            triplet_weight=1.0,
            triplet_margin=0.3,  # of batch_hard
            # Of the weights of "weighted": "code", as released and published, in which far negatives lose their weight;
            # "softmax", as the paper's equation says. They train differently.
            triplet_form="code",
        )
    )
    config.optim.new_layers = ("^bottleneck/", "^classifier/")  # all others at base_lr_factor, a tenth
    return config


def agw() -> ConfigDict:
    """AGW on SYSU-MM01 as released; the other experiments change what differs."""
    config = base()
    config.model.non_local = ((2, 2), (2, 3), (3, 3), (3, 4), (3, 5))
    config.model.pooling = "gem"
    config.loss.triplet = "weighted"
    return config


def caj() -> ConfigDict:
    """CAJ on SYSU-MM01 as released; the other experiments change what differs."""
    config = agw()
    config.method = "caj"
    config.data.second_views = ("rgb",)  # the second one is shown in one of its channels
    config.data.erasing = 0.5
    config.data.erasing_form = "torchreid"
    config.data.erasing_fill = (0.4914, 0.4822, 0.4465)  # after normalisation, as released
    with config.loss.unlocked():
        config.loss.alpha = 1.0  # factor on the distances in the triplet's weights
        config.loss.gamma = 1.0  # factor on the squared difference
        config.loss.square = True  # False: the difference itself
        config.loss.kl_weight = 0.0  # of the divergence of visible from infrared predictions
        config.loss.temperature = 3.0  # of that divergence
    config.loss.triplet = "squared_difference"
    config.optim.epochs = 100
    with config.eval.unlocked():
        config.eval.mirror = True  # average the features of every image and its mirror image
    return config


def hetero_center() -> ConfigDict:
    """Hetero-Center on SYSU-MM01 as released; the other experiments change what differs."""
    config = visible_infrared()
    config.method = "hetero_center"
    config.seed = 1
    # As published the only augmentation is the flip: the authors' random crop is of the size of the image.
    config.data.padding = 0
    config.model = ConfigDict(
        dict(
            backbone="resnet50",  # one for each modality; resnet18, or resnet_micro for tests
            last_stride=1,
            strips=6,
            embed_dim=512,
            dropout=0.0,  # in front of the classifiers
            num_classes=0,  # 0: number of training identities
            dtype="float32",  # or bfloat16
            remat=False,  # less memory, more time
        )
    )
    config.loss = ConfigDict(
        dict(
            ce_weight=1.0,  # of the cross-entropy, summed over the strips
            label_smoothing=0.0,
            hc_weight=0.5,  # of the hetero-center loss, summed over the strips; 0: cross-entropy alone
            distance="l2",  # of the centres: squared; "l1": mean over the dimensions; "cos"
            margin=0.0,  # distance that is close enough
            grouping="by_label",  # or "positional": the reference's chunks; equal on PK batches
        )
    )
    config.optim.lr = 0.01
    config.optim.warmup_epochs = 0
    config.optim.milestones = (30, 60)
    # The authors' loop has one epoch more than asked for: the last one alone runs at a hundredth.
    config.optim.epochs = 61
    config.train.identities_per_batch = 4
    config.train.images_per_identity = 8
    config.train.replacement = False
    # Six unit vectors side by side, compared as they are: the sum of six cosines.
    config.eval.normalize = False
    return config


def ddag() -> ConfigDict:
    """DDAG on SYSU-MM01 as MMGL's copy of the code sets it; the other experiments change what differs."""
    config = base()
    config.method = "ddag"
    with config.model.unlocked():
        config.model.wpa = True  # intra-modality weighted-part attention
        config.model.parts = 3
        config.model.graph = True  # cross-modality graph attention, in training
        config.model.graph_heads = 4
        config.model.graph_dim = 512  # of each head
        config.model.dropout = 0.2  # inside the graph attention
    with config.loss.unlocked():
        config.loss.part_weight = 1.0  # of the cross-entropy of the part-refined feature
        # Negative: dynamic, 0 in the first epoch, then one over one plus the mean of the other losses in the last.
        config.loss.graph_weight = -1.0
    config.optim.new_layers = ("^(bottleneck|classifier|parts|graph)/",)  # all others at base_lr_factor, a tenth
    config.optim.milestones = (30, 50)
    config.optim.period = 80  # of the cosine, where optim.schedule names it
    config.eval.feature = "fc_att"
    return config


def mmgl() -> ConfigDict:
    """MMGL's pre-training on SYSU-MM01; the other experiments change what differs."""
    config = visible_infrared()
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


def tvi_lfm() -> ConfigDict:
    """TVI-LFM's base stage on SYSU-MM01 as released; the other experiments change what differs."""
    config = visible_infrared()
    config.method = "tvi_lfm"
    config.seed = 1
    config.data.second_views = ("rgb",)  # the second one with half of its images in one channel
    config.data.grey_of = (("rgb", 0.1),)
    config.data.erasing = 0.6
    config.data.erasing_of = (("nir", 0.5),)
    config.data.erasing_form = "torchreid"
    config.data.erasing_fill = (0.4914, 0.4822, 0.4465)  # after normalisation, as released
    config.model = ConfigDict(
        dict(
            stage="base",  # images alone; "text": the text tower beside a base model
            backbone="resnet50",  # resnet_micro for tests
            last_stride=1,
            gem_power=3.0,  # of the pooling at the start
            text_tower="clip_rn50",  # sizes; text_micro for tests
            # How an infrared feature becomes a query: "filter" adds the visible text and takes the infrared one off,
            # "add" adds the visible one; "norm_add": see the method.
            fusion="filter",
            # Text stage: "code": the weights of the visual network are fixed and its running statistics drift, as
            # released and published; "all": it is fixed, as the paper says; "none": it trains along.
            freeze_visual="code",
            separate_norms=False,  # a batch norm of its own for visible, infrared, fused and text features
            num_classes=0,  # 0: number of training identities
            dtype="float32",  # or bfloat16
            remat=False,  # less memory, more time
        )
    )
    config.loss = ConfigDict(
        dict(
            ce_weight=1.0,
            label_smoothing=0.0,
            triplet_weight=1.0,
            # Of the triplet's weights: "code", as released and published, in which far negatives lose their weight;
            # "softmax", as the equation says.
            triplet_form="code",
            joint=True,  # images, fusions and texts in one loss; False: visible images and fusions
            # Terms of the text stage that no released script uses.
            ce_without_ir_weight=0.0,
            triplet_without_ir_weight=0.0,
            orthogonality_weight=0.0,  # of infrared features and what the visible text adds to the infrared one
            orthogonality_sum_weight=0.0,  # the same, summed over all pairs
            i2t_regular_weight=0.0,  # infrared features are as similar to fusions as texts are
            t2i_regular_weight=0.0,  # the other way round
            image_to_text_weight=0.0,
            text_to_image_weight=0.0,
        )
    )
    config.optim.name = "adam"
    config.optim.lr = 3.5e-4
    config.optim.nesterov = False
    config.optim.warmup_start = 0.01
    config.optim.milestones = (40, 60, 100)
    config.optim.epochs = 120
    config.groups = ConfigDict(
        dict(
            head_lr_factor=2.0,  # batch norm and classifier
            text_lr=1e-5,  # of the text tower's blocks
            text_bias_lr_factor=2.0,
            # Negative: config.optim.weight_decay, as released, whatever its scripts name for text.
            text_weight_decay=-1.0,
            text_bias_weight_decay=0.0,
            whole_tower=False,  # embeddings, projection and last norm at these rates, too; released: at config.optim.lr
        )
    )
    return config


def tvi_lfm_text() -> ConfigDict:
    """TVI-LFM's text stage on SYSU-MM01 as released."""
    config = tvi_lfm()
    config.model.stage = "text"
    config.data.text = True
    config.groups.text_lr = 3.5e-4
    config.groups.text_bias_weight_decay = 5e-4
    config.eval.feature = "fusion"
    return config


def on_regdb(config: ConfigDict) -> ConfigDict:
    """TVI-LFM on RegDB, whose thermal images search the visible ones."""
    config.data.dataset = "regdb"
    config.data.erasing_of = (("tir", 0.5),)
    config.eval.protocol = "regdb_thermal_to_visible"
    return config
