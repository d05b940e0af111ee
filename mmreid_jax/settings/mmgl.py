"""MMGL's own sections; what their keys mean is said in ``configs/systems/mmgl.py``."""

from mmreid_jax.settings import common
from mmreid_jax.settings.kinds import Choice, Number, Section, Switch, Text, Whole

_SCOPE = Choice("batch", ("batch", "pair"))
SECTIONS = {
    "model": Section(
        {
            "backbone": Text("resnet50"),
            "last_stride": common.STRIDE,
            "shared_from": Whole(1, 0, 5),
            "stripes": Whole(6, 2, 12),
            "stripe_gap": Whole(0, 0, 4096),
            "shared_in_pair": Switch(True),
            "perm_head_hidden": Whole(0, 0, 65536),
            "proj_dim": Whole(256, 1, 65536),
            "proj_head": Choice("conv_bn_relu", ("conv_bn_relu", "conv")),
            "proj_shared": Switch(False),
            "num_classes": common.CLASSES,
            "dtype": common.DTYPE,
            "remat": Switch(False),
        }
    ),
    "loss": Section(
        {
            "perm_weight": Number(1.0, 0),
            "perm_reduction": Choice("sum", ("sum", "mean")),
            "sinkhorn_iterations": Whole(20, 1, 10_000),
            "sinkhorn_temperature": Number(1.0, above=0),
            "sinkhorn_noise": Number(0.0, 0),
            "sinkhorn_samples": Whole(1, 1, 10_000),
            "cl_weight": Number(0.5, 0),
            "cl_temperature": Number(0.07, above=0),
            "cl_start": Whole(0, 0, 1_000_000_000),
            "cl_mode": Choice("parallel", ("parallel", "sequential", "cycle_back")),
            "cl_query": Choice("both", ("both", "visible", "infrared")),
            "retrieval_temperature": Number(0.0, 0),
            "candidate_scope": _SCOPE,
            "negative_scope": _SCOPE,
            "exclude_self": Switch(False),
            "stop_gradient": Switch(False),
        }
    ),
    "eval": common.EVAL | {"examined": Whole(2000, 0, 1_000_000_000)},
}
WEIGHTS = ("perm_weight", "cl_weight")
"""Of ``config.loss``: where all are 0 there is nothing to learn."""
