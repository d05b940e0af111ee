"""DeMo's own sections; what their keys mean is said in ``configs/systems/demo_moe.py``."""

from mmreid_jax.settings import common
from mmreid_jax.settings.kinds import Number, Section, Switch, Text, Whole, share

SECTIONS = {
    "model": Section(
        common.CLIP_TRUNK
        | {
            "global_local": Switch(True),
            "fusion": Text("experts"),
            "heads": Whole(4, 1, 4096),
            "dropout": Number(0.1, 0, below=1),
            "joint_head": Switch(True),
        }
    ),
    "loss": Section(
        {"ce_weight": Number(0.25, 0), "label_smoothing": common.SMOOTHING, "triplet_weight": Number(1.0, 0)}
    ),
    "train": common.TRAIN | {"missing_modalities": share(0.0)},
    "eval": common.EVAL | common.SETS,
}
WEIGHTS = ("ce_weight", "triplet_weight")
"""Of ``config.loss``: where all are 0 there is nothing to learn."""
RELEASED = {"": {"train.sampler": "reference"}}
"""What the released program chose where this library has more than one way: data set, "" for all -> key -> value."""
