"""DDAG's own sections; what their keys mean is said in ``configs/systems/ddag.py``."""

from mmreid_jax.settings import agw
from mmreid_jax.settings.kinds import Number, Switch, Whole

SECTIONS = {
    **agw.SECTIONS,
    "model": agw.SECTIONS["model"]
    | {
        "wpa": Switch(True),
        "parts": Whole(3, 1, 64),
        "graph": Switch(True),
        "graph_heads": Whole(4, 1, 256),
        "graph_dim": Whole(512, 1, 65536),
        "dropout": Number(0.2, 0, below=1),
    },
    "loss": agw.SECTIONS["loss"] | {"part_weight": Number(1.0, 0), "graph_weight": Number(-1.0)},
}
WEIGHTS = (*agw.WEIGHTS, "part_weight", "graph_weight")
RELEASED = agw.RELEASED
"""What the released program chose where this library has more than one way: data set, "" for all -> key -> value."""
