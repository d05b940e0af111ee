"""The sections that the experiments of all systems share; what their keys mean is said in ``configs/common.py``."""

from __future__ import annotations

from mmreid_jax.settings.kinds import Choice, Kind, Number, Pair, Section, Several, Switch, Text, Whole, names, share

DTYPE = Choice("float32", ("float32", "bfloat16"))
MARGIN = Number(0.0, 0)
WEIGHT = Number(0.0, 0)
CLASSES = Whole(0, 0, 1_000_000)
SMOOTHING = Number(0.0, 0, below=1)
GROUPING = Choice("by_label", ("by_label", "positional"))
STRIDE = Whole(1, 1, 2)
DISTANCES = ("squared_euclidean", "euclidean", "cosine")
_INTERPOLATION = Choice("bilinear", ("bilinear", "bicubic", "lanczos"))
_OF_VIEWS = Several((), Pair((), (Text(""), share(0.0))), distinct=True)

CLIP_TRUNK: dict[str, Kind] = {
    "backbone": Text("clip_vit_b16_projected"),
    "side_camera": Switch(True),
    "side_weight": Number(1.0),
    "num_classes": CLASSES,
    "dtype": DTYPE,
    "remat": Switch(False),
    "attention": Choice("plain", ("plain", "xla", "cudnn")),
    "unroll": Whole(1, 1, 1000),
}
"""Of ``config.model``, for methods on `mmreid_jax.methods.clip_trunk`."""

TOP = Section(
    {
        "method": Text(""),
        "task": Choice("train", ("train", "adapt", "train_adapt")),
        "seed": Whole(0, 0, 2**32 - 1),
        "parity": Choice("", ("", "released")),
    }
)
"""Keys that stand in no section."""

DATA = Section(
    {
        "dataset": Text("rgbnt201"),
        "modalities": names(),
        "data_dir": Text("data"),
        "manual_dir": Text(""),
        "train_list": Text(""),
        "drawn": Switch(False),
        "drawn_identities": Whole(0, 0, 300),
        "drawn_images": Whole(0, 0, 100),
        "drawn_shift": Number(-1.0, -1, 1),
        "drawn_seed": Whole(0, 0, 2**32 - 1),
        "image_size": Several((256, 128), Whole(1, 1, 4096), counts=(2,)),
        "interpolation": _INTERPOLATION,
        "eval_interpolation": _INTERPOLATION,
        "padding": Whole(10, 0, 4096),
        "flip": share(0.0),
        "erasing": share(0.5),
        "erasing_form": Choice("timm", ("timm", "torchreid")),
        "erasing_area": Several((), share(0.0), counts=(0, 2), ascending=True),
        "erasing_of": _OF_VIEWS,
        "erasing_fill": Several((), Number(0.0), counts=(0, 3)),
        "labels": Switch(True),
        "moderate_enhancement": share(0.0),
        "radical_enhancement": share(0.0),
        "second_views": names(),
        "grey_of": _OF_VIEWS,
        "text": Switch(False),
        "captioner": Text("Blip"),
        "rephrased": share(0.5),
        "caption_draw": Choice("counter", ("counter", "reference")),
        "caption_seed": Whole(1, 0, 2**32 - 1),
        "random_crop": share(0.0),
        "random_patch": share(0.0),
        "brightness": share(0.0),
        "contrast": share(0.0),
        "shared_augmentation": Switch(False),
        "mean": Several((0.5, 0.5, 0.5), Number(0.0), counts=(3,)),
        "std": Several((0.5, 0.5, 0.5), Number(1.0, above=0), counts=(3,)),
        "rgbnt100_third": Text("thermal"),
        "rgbn300_third": Text(""),
        "broken_images": Choice("error", ("error", "stop", "skip", "truncated")),
        "value_range": Several((), Number(0.0), counts=(0, 2), ascending=True),
        "on_device": Choice("auto", ("auto", "on", "off")),
        "cache_gib": Number(8.0, 0, 1e6),
        "threads": Whole(2, 0, 1024),
        "workers": Whole(0, 0, 1024),
    }
)

OPTIM = Section(
    {
        "name": Choice("sgd", ("sgd", "adam", "adamw", "amsgrad", "rmsprop", "radam")),
        "lr": Number(0.008, 0, 1000),
        "momentum": Number(0.9, 0, below=1),
        "nesterov": Switch(False),
        "beta1": Number(0.9, 0, below=1),
        "beta2": Number(0.999, 0, below=1),
        "alpha": Number(0.99, 0, below=1),
        "weight_decay": Number(1e-4, 0, 1000),
        "bias_lr_factor": Number(2.0, 0, 1e6),
        "new_layers": names(),
        "base_lr_factor": Number(0.1, 0, 1e6),
        "schedule": Choice(
            "htt", ("htt", "shared_ends", "cosine", "cosine_per_step", "multi_step", "single_step", "constant")
        ),
        "warmup_epochs": Whole(5, 0, 1_000_000),
        "milestones": Several((40, 70), Whole(1, 1, 1_000_000), ascending=True),
        "decay": Number(0.1, 0, 1e6),
        "clip_norm": Number(0.0, 0),
        "epochs": Whole(80, 1, 1_000_000),
    },
    optional={
        "epsilon": Number(1e-8, 0, 1),
        "warmup_start": Number(-1.0, -1, 1),
        "minimum": share(0.0),
        "period": Whole(0, 0, 1_000_000),
        "noise": share(0.0),
        "noise_seed": Whole(42, 0, 2**31),
    },
)

TRAIN = Section(
    {
        "identities_per_batch": Whole(8, 1, 65536),
        "images_per_identity": Whole(4, 1, 65536),
        "sampler": Choice("counter", ("counter", "reference", "hetero_center", "cameras", "scenes", "unpaired")),
        "replacement": Switch(False),
        "micro_batches": Whole(1, 1, 65536),
        "eval_every": Whole(5, 1, 1_000_000),
        "evaluate_first": Switch(False),
        "checkpoint_every": Whole(1, 1, 1_000_000),
        "log_every": Whole(10, 1, 1_000_000_000),
        "loggers": Several(("tensorboard",), Choice("tensorboard", ("tensorboard", "wandb", "mlflow")), distinct=True),
        "steps_per_call": Whole(1, 1, 10_000),
        "profile": Whole(0, 0, 10_000),
        "compilation_cache": Switch(True),
        "compiler": Choice("auto", ("auto", "plain")),
    }
)

EVAL = Section(
    {
        "feature": Text("after"),
        "batch_size": Whole(64, 1, 65536),
        "distance": Choice("", ("", *DISTANCES)),
        "normalize": Switch(True),
        "protocol": Text(""),
        "single_shot": Switch(False),
        "rerank": Switch(False),
        "rerank_k1": Whole(50, 1, 100_000),
        "rerank_k2": Whole(15, 1, 100_000),
        "rerank_lambda": share(0.3),
        "rerank_distance": Choice("euclidean", DISTANCES),
        "missing_modalities": Switch(False),
        "report": Switch(True),
        "visrank": Switch(False),
        "visrank_topk": Whole(10, 1, 1000),
        "embedding_identities": Whole(8, 0, 1000),
        "embedding_scale": Switch(False),
    }
)

SETS: dict[str, Kind] = {
    "query_modalities": names(),
    "gallery_modalities": names(),
    "matching": Choice("by_name", ("by_name", "as_released")),
    "all_pairs": Switch(False),
    "missing_any": Switch(False),
}
"""Of ``config.eval``, for methods that compare images of which different modalities are at hand."""

INIT = Section(
    {
        "backbone": Text(""),
        "from_mmgl": Text(""),
        "from_base": Text(""),
        "clip": Text(""),
        "checkpoint": Text(""),
        "which": Choice("best", ("best", "last")),
    }
)

SECTIONS = {"data": DATA, "optim": OPTIM, "train": TRAIN, "eval": EVAL, "init": INIT}
