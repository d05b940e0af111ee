"""CAJ's own sections; what their keys mean is said in ``configs/systems/caj.py``."""

from mmreid_jax.settings import agw, common
from mmreid_jax.settings.kinds import Choice, Number, Switch

SECTIONS = {
    **agw.SECTIONS,
    "loss": agw.SECTIONS["loss"]
    | {
        "triplet": Choice("squared_difference", ("batch_hard", "weighted", "squared_difference")),
        "alpha": Number(1.0, 0, 1e6),
        "gamma": Number(1.0, 0, 1e6),
        "square": Switch(True),
        "kl_weight": common.WEIGHT,
        "temperature": Number(3.0, above=0),
    },
    "eval": common.EVAL | {"mirror": Switch(True)},
}
WEIGHTS = (*agw.WEIGHTS, "kl_weight")
RELEASED = agw.RELEASED
"""What the released program chose where this library has more than one way: data set, "" for all -> key -> value."""
