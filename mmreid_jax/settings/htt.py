"""HTT's own sections; what their keys mean is said in ``configs/systems/htt.py``."""

from mmreid_jax.settings import common
from mmreid_jax.settings.kinds import Choice, Number, Section, Switch, Text, Whole

SECTIONS = {
    "model": Section(
        {
            "backbone": Text("vit_base"),
            "stride": Whole(0, 0, 4096),
            "drop_path": Number(0.1, 0, below=1),
            "side_camera": Switch(False),
            "side_view": Switch(False),
            "side_weight": Number(3.0),
            "last_stride": common.STRIDE,
            "num_classes": common.CLASSES,
            "head": Text("linear"),
            "head_scale": Number(30.0, above=0),
            "head_margin": Number(0.5, 0),
            "dtype": common.DTYPE,
            "remat": Switch(False),
            "attention": Choice("plain", ("plain", "xla", "cudnn")),
            "unroll": Whole(1, 1, 1000),
        }
    ),
    "loss": Section(
        {
            "ce_weight": Number(1.0, 0),
            "label_smoothing": common.SMOOTHING,
            "triplet_weight": Number(1.0, 0),
            "triplet_margin": Number(-1.0),
            "mmm_weight": Number(0.5, 0),
            "mmm_margin": Number(1.0, 0),
            "cim_weight": Number(0.5, 0),
            "cim_margin": Number(0.5, 0),
            "center_weight": common.WEIGHT,
            "grouping": common.GROUPING,
        }
    ),
    "mtt": Section(
        {
            "form": Choice("code", ("code", "paper")),
            "batch_size": Whole(2, 1, 65536),
            "mmm_weight": Number(1.0, 0),
            "mmm_margin": Number(1.0, 0),
            "cim_weight": Number(1.0, 0),
            "cim_margin": Number(1.0, 0),
            "episodic": Switch(False),
            "episode_size": Whole(64, 1, 1_000_000),
            "statistics": Choice("batch", ("batch", "kept")),
            "reestimate_statistics": Switch(False),
        }
    ),
    "mtt.optim": common.OPTIM,
    "eval": common.EVAL | common.SETS,
}
WEIGHTS = ("ce_weight", "triplet_weight", "mmm_weight", "cim_weight", "center_weight")
"""Of ``config.loss``: where all are 0 there is nothing to learn."""
RELEASED = {
    "": {
        "train.sampler": "reference",
        "loss.grouping": "positional",
        "mtt.form": "code",
        "mtt.mmm_weight": 1.0,
        "mtt.cim_weight": 1.0,
        "mtt.statistics": "batch",
    },
    "rgbnt100": {"data.rgbnt100_third": "reference"},
    "rgbn300": {"data.rgbn300_third": "reference"},
}
"""What the released program chose where this library has more than one way: data set, "" for all -> key -> value."""
