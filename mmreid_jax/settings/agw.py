"""The sections of Base and AGW; what their keys mean is said in ``configs/systems/agw.py``."""

from mmreid_jax.settings import common
from mmreid_jax.settings.kinds import Choice, Number, Pair, Section, Several, Switch, Text, Whole

SECTIONS = {
    "model": Section(
        {
            "backbone": Text("resnet50"),
            "last_stride": common.STRIDE,
            "shared_from": Whole(1, 0, 5),
            "non_local": Several((), Pair((), (Whole(1, 1, 4), Whole(0, 0, 100))), distinct=True),
            "pooling": Choice("avg", ("avg", "gem")),
            "gem_power": Number(3.0, most=100, above=0),
            "num_classes": common.CLASSES,
            "dtype": common.DTYPE,
            "remat": Switch(False),
        }
    ),
    "loss": Section(
        {
            "ce_weight": Number(1.0, 0),
            "label_smoothing": common.SMOOTHING,
            "triplet": Choice("batch_hard", ("batch_hard", "weighted")),
            "triplet_weight": Number(1.0, 0),
            "triplet_margin": Number(0.3, 0),
            "triplet_form": Choice("code", ("code", "softmax")),
        }
    ),
}
WEIGHTS: tuple[str, ...] = ("ce_weight", "triplet_weight")
"""Of ``config.loss``: where all are 0 there is nothing to learn."""
RELEASED = {"": {"train.sampler": "reference", "loss.triplet_form": "code"}}
"""What the released program chose where this library has more than one way: data set, "" for all -> key -> value."""
