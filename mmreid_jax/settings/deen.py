"""DEEN's own sections; what their keys mean is said in ``configs/systems/deen.py``."""

from mmreid_jax.settings import common
from mmreid_jax.settings.kinds import Number, Section, Several, Switch, Text, Whole

SECTIONS = {
    "model": Section(
        {
            "backbone": Text("resnet50"),
            "last_stride": common.STRIDE,
            "expanded": Whole(3, 1, 3),
            "dropout": Number(0.01, 0, below=1),
            "num_classes": common.CLASSES,
            "dtype": common.DTYPE,
            "remat": Switch(False),
        }
    ),
    "loss": Section(
        {
            "ce_weight": Number(1.0, 0),
            "label_smoothing": common.SMOOTHING,
            "triplet_weight": Number(1.0, 0),
            "triplet_margin": Number(0.3, 0),
            "cpm_weight": Number(0.8, 0),
            "cpm_margin": Number(0.2, 0),
            "orthogonality_weight": Number(0.01, 0),
            "grouping": common.GROUPING,
        }
    ),
    "eval": common.EVAL | {"mirror": Switch(True), "weights": Several((1.0, 1.0), Number(1.0, 0), counts=(2,))},
}
WEIGHTS = ("ce_weight", "triplet_weight", "cpm_weight", "orthogonality_weight")
"""Of ``config.loss``: where all are 0 there is nothing to learn."""
RELEASED = {"": {"train.sampler": "reference", "loss.grouping": "positional"}}
"""What the released program chose where this library has more than one way: data set, "" for all -> key -> value."""
