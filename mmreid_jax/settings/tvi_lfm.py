"""TVI-LFM's own sections; what their keys mean is said in ``configs/systems/tvi_lfm.py``."""

from mmreid_jax.settings import common
from mmreid_jax.settings.kinds import Choice, Number, Section, Switch, Text

SECTIONS = {
    "model": Section(
        {
            "stage": Choice("base", ("base", "text", "visible_text")),
            "backbone": Text("resnet50"),
            "last_stride": common.STRIDE,
            "gem_power": Number(3.0, most=100, above=0),
            "text_tower": Text("clip_rn50"),
            "fusion": Choice("filter", ("filter", "add", "norm_add", "parameter_add")),
            "fusion_share": common.share(0.1),
            "freeze_visual": Choice("code", ("code", "all", "none")),
            "separate_norms": Switch(False),
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
            "triplet_form": Choice("code", ("code", "softmax")),
            "joint": Switch(True),
            "ce_without_ir_weight": common.WEIGHT,
            "triplet_without_ir_weight": common.WEIGHT,
            "orthogonality_weight": common.WEIGHT,
            "orthogonality_sum_weight": common.WEIGHT,
            "i2t_regular_weight": common.WEIGHT,
            "t2i_regular_weight": common.WEIGHT,
            "image_to_text_weight": common.WEIGHT,
            "text_to_image_weight": common.WEIGHT,
        }
    ),
    "groups": Section(
        {
            "head_lr_factor": Number(2.0, 0, 1e6),
            "text_lr": Number(1e-5, 0, 1000),
            "text_bias_lr_factor": Number(2.0, 0, 1e6),
            "text_weight_decay": Number(-1.0, most=1000),
            "text_bias_weight_decay": Number(0.0, 0, 1000),
            "whole_tower": Switch(False),
        }
    ),
}
WEIGHTS = tuple(key for key in SECTIONS["loss"] if key.endswith("_weight"))
"""Of ``config.loss``: where all are 0 there is nothing to learn."""
RELEASED = {
    "": {
        "train.sampler": "reference",
        "data.caption_draw": "reference",
        "loss.triplet_form": "code",
        "model.freeze_visual": "code",
    }
}
"""What the released program chose where this library has more than one way: data set, "" for all -> key -> value."""
