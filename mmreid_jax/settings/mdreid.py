"""MDReID's own sections; what their keys mean is said in ``configs/systems/mdreid.py``."""

from mmreid_jax.settings import common
from mmreid_jax.settings.kinds import Number, Section, share

SECTIONS = {
    "model": Section(common.CLIP_TRUNK),
    "loss": Section(
        {
            "ce_weight": Number(0.25, 0),
            "label_smoothing": common.SMOOTHING,
            "triplet_weight": Number(1.0, 0),
            "shared_weight": Number(3.0, 0),
            "orthogonality_weight": Number(1.5, 0),
            "disentangling_weight": Number(5.25, 0),
        }
    ),
    "train": common.TRAIN | {"missing_modalities": share(0.0)},
    "eval": common.EVAL | common.SETS,
}
WEIGHTS = ("ce_weight", "triplet_weight", "orthogonality_weight", "disentangling_weight")
"""Of ``config.loss``: where all are 0 there is nothing to learn."""
RELEASED = {"": {"train.sampler": "reference"}}
"""What the released program chose where this library has more than one way: data set, "" for all -> key -> value."""
