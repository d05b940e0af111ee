"""Sections that the experiments of all systems share: every key with its type, its meaning and a sensible default."""

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
            erasing_area=(),  # smallest and largest share of the image; empty: as erasing_form says
            erasing_of=(),  # where one view differs: (("nir", 0.5),); a second view is called rgb_2
            erasing_fill=(),  # value of each channel, put in after normalisation; empty: as erasing_form says
            labels=True,  # False: training sees no identity; for methods that learn without labels
            # RLE's two transforms of training images, the probability of each (0.5 in RLE): the image in a random
            # weighted grey; the channels of random rectangles scaled by random factors.
            moderate_enhancement=0.0,
            radical_enhancement=0.0,
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
            random_patch=0.0,  # probability of a piece of another image pasted on; 0.5 is torchreid's random_patch
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
            schedule="htt",  # htt, shared_ends, cosine, cosine_per_step, multi_step, single_step, constant
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
            evaluate_first=False,  # also score the untrained network, and the trunk that training starts from
            checkpoint_every=1,  # epochs
            log_every=10,  # steps
            loggers=("tensorboard",),  # who gets these numbers beside metrics.jsonl: tensorboard, wandb, mlflow
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
            visrank=False,  # also write every query's ranked list, as pages of thumbnails in figures/ranked_lists
            visrank_topk=10,  # gallery samples in a ranked list
            embedding_identities=8,  # test identities in the report's t-SNE picture of the features; 0: no picture
            embedding_scale=False,  # stretch every modality's points to the same square, so that they overlie
        )
    )


def evaluation_of_sets() -> ConfigDict:
    """The same for systems that compare images of which different modalities are at hand."""
    section = evaluation()
    with section.unlocked():
        # Modalities that queries and gallery have, by name; empty: all. Other images are not looked at.
        section.query_modalities = ()
        section.gallery_modalities = ()
        # Which features of unlike sets are compared: those of the same modality; "as_released": by their places in the
        # lists, as MDReID's code does, for two of its pairs of different modalities.
        section.matching = "by_name"
        section.all_pairs = False  # the finished model is also scored on every pair of sets of modalities
        section.missing_any = False  # also where every test sample lacks a set of modalities of its own, or none
    return section


def initial() -> ConfigDict:
    """Weights to start from."""
    return ConfigDict(
        dict(
            # ImageNet weights: a PyTorch or safetensors file, or a directory made by mmreid_jax.convert. For drawn data
            # there are trunks in the package: drawn/resnet_mini, drawn/resnet_mini_rgb of colour images alone,
            # drawn/resnet_mini_cross, to which a person is the same in colour and in near infrared, and drawn/vit_mini.
            backbone="",
            # A trunk pre-trained by MMGL, for visible-infrared methods: its workdir, a converted directory or a flat
            # PyTorch file. Takes the place of `backbone`.
            from_mmgl="",
            # The base model of TVI-LFM's text stage: its workdir, a converted directory or the authors' file. Takes the
            # place of `backbone`.
            from_base="",
            # CLIP's weights for a text tower: OpenAI's or Hugging Face's file, or a converted directory; for drawn data
            # drawn/text_mini, a tower in the package that has read captions of drawn people.
            clip="",
            checkpoint="",  # a whole trained model: a run's workdir, or a directory made by mmreid_jax.convert
            which="best",  # or "last": of a workdir's checkpoints
        )
    )
