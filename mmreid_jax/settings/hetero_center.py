"""Hetero-Center's own sections; what their keys mean is said in ``configs/systems/hetero_center.py``."""

from mmreid_jax.settings import common
from mmreid_jax.settings.kinds import Choice, Number, Section, Switch, Text, Whole

SECTIONS = {
    "model": Section(
        {
            "backbone": Text("resnet50"),
            "last_stride": common.STRIDE,
            "strips": Whole(6, 1, 64),
            "embed_dim": Whole(512, 1, 65536),
            "dropout": Number(0.0, 0, below=1),
            "num_classes": common.CLASSES,
            "dtype": common.DTYPE,
            "remat": Switch(False),
        }
    ),
    "loss": Section(
        {
            "ce_weight": Number(1.0, 0),
            "label_smoothing": common.SMOOTHING,
            "hc_weight": Number(0.5, 0),
            "distance": Choice("l2", ("l2", "l1", "cos")),
            "margin": common.MARGIN,
            "grouping": common.GROUPING,
        }
    ),
}
WEIGHTS = ("ce_weight", "hc_weight")
"""Of ``config.loss``: where all are 0 there is nothing to learn."""
RELEASED = {
    "": {"train.sampler": "hetero_center", "loss.grouping": "positional"},
    "sysu_mm01": {"eval.protocol": "sysu_all_single_hetero_center"},
}
"""What the released program chose where this library has more than one way: data set, "" for all -> key -> value."""
