"""IEEE's own sections; what their keys mean is said in ``configs/systems/ieee.py``."""

from mmreid_jax.settings import common
from mmreid_jax.settings.kinds import Choice, Number, Section, Switch, Text, Whole, names

SECTIONS = {
    "model": Section(
        {
            "backbone": Text("resnet50"),
            "last_stride": common.STRIDE,
            "parts": Whole(6, 1, 64),
            "part_dim": Whole(768, 1, 65536),
            "embed_dim": Whole(128, 1, 65536),
            "cim": Switch(True),
            "cim_attention": Switch(True),
            "rem": Choice("code", ("code", "paper", "off")),
            "global_from": Choice("backbone", ("backbone", "cim")),
            "num_classes": common.CLASSES,
            "streams": Choice("loop", ("loop", "vmap")),
            "dtype": common.DTYPE,
            "remat": Switch(False),
        }
    ),
    "loss": Section(
        {
            "name": Choice("margin", ("margin", "softmax", "triplet", "hcloss")),
            "weight_x": Number(1.0, 0),
            "weight_m": Number(1.0, 0),
            "margin": Number(1.0, 0),
            "triplet_margin": Number(0.3, 0),
            "label_smoothing": common.SMOOTHING,
            "grouping": common.GROUPING,
        }
    ),
    "train": common.TRAIN | {"fixbase_epochs": Whole(0, 0, 1_000_000), "open_layers": names(("classifier",))},
    "eval": common.EVAL | common.SETS | {"cross_modal": Switch(False)},
}
WEIGHTS = ("weight_x", "weight_m")
"""Of ``config.loss``: where all are 0 there is nothing to learn."""
RELEASED = {
    "": {
        "train.sampler": "reference",
        "loss.grouping": "positional",
        "model.rem": "code",
        "model.global_from": "backbone",
        "eval.rerank_distance": "squared_euclidean",
    }
}
"""What the released program chose where this library has more than one way: data set, "" for all -> key -> value."""
