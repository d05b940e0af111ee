"""Trained networks of DDAG (ECCV 2020): the ``net`` of the authors' and of MMGL's checkpoints.

The trunk is that of AGW. Files also hold two classifiers and a projection that the network never uses; they are
dropped, and written again on export for strict loaders. Reference: class ``embed_net`` of the authors' code.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mmreid_jax.convert import two_stream
from mmreid_jax.convert.layout import (
    POINT,
    VECTOR,
    AnyLayout,
    Drop,
    Layout,
    Rule,
    Transform,
    Variants,
    batch_norm,
    join,
    nest,
)

_UNUSED = "the network never uses it"
_MATRIX = Transform(ndim=2)


def layout(
    parts: bool | None = None,
    attention: bool | None = None,
    non_local: Sequence[tuple[int, int]] = (),
    stages: tuple[int, ...] = two_stream.STAGES,
    bottleneck: bool = True,
    shared_from: int = 1,
) -> AnyLayout:
    """The name map of a trained network; the switches are those of the ablation, None: whatever the file has.

    Args:
      parts: whether there is weighted-part attention.
      attention: whether there is graph attention.
      non_local, stages, bottleneck, shared_from: of the trunk, see `two_stream.layout`.
    """
    copies = tuple(
        Drop(f"classifier{number}.weight", _UNUSED, lambda exported: exported["classifier.weight"].copy())
        for number in (1, 2)
    )
    trunk = two_stream.trunk(stages, bottleneck, shared_from)
    shared = [trunk, two_stream.non_local_blocks(non_local, shared_from), two_stream.neck(), Layout("ddag", (), copies)]
    added = ([nest(weighted_parts(), "wpa.", "parts/")], [nest(graph(), target="graph/")])
    # Of two that know as many names of a file the first is taken, so those with fewer layers come first.
    variants = [
        join("ddag", *shared, *(added[0] if with_parts else []), *(added[1] if with_graph else []))
        for with_parts, with_graph in itertools.product((False, True), repeat=2)
        if parts in (None, with_parts) and attention in (None, with_graph)
    ]
    return variants[0] if len(variants) == 1 else Variants("ddag", tuple(variants))


def weighted_parts() -> Layout:
    """The name map of the weighted-part attention alone."""
    rules: list[Rule] = [Rule("gate", "params/gate", VECTOR)]
    for source, target in (("fc1.0", "query"), ("fc2", "key"), ("fc3", "value")):
        rules += [
            Rule(f"{source}.weight", f"params/{target}/kernel", POINT),
            Rule(f"{source}.bias", f"params/{target}/bias", VECTOR),
        ]
    rules += batch_norm("bottleneck", "bottleneck")

    def like(name: str, value: float) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
        """As initialised: of the same shape and type as another entry, and constant."""
        return lambda exported: np.full_like(exported[name], value)

    drops = (
        Drop("W.0.weight", _UNUSED, like("fc3.weight", 0.0)),
        *(Drop(f"W.{name}", _UNUSED, like("fc3.bias", 0.0)) for name in ("0.bias", "1.weight", "1.bias")),
        Drop("W.1.running_mean", _UNUSED, like("fc3.bias", 0.0)),
        Drop("W.1.running_var", _UNUSED, like("fc3.bias", 1.0)),
        Drop("W.1.num_batches_tracked", _UNUSED, like("bottleneck.num_batches_tracked", 0.0)),
    )
    return Layout("ddag", tuple(rules), drops)


def graph() -> Layout:
    """The name map of the graph attention alone."""
    rules = (
        Rule("attention_{head}.W", "params/heads/kernel", _MATRIX),
        Rule("attention_{head}.a", "params/heads/vector", _MATRIX),
        Rule("out_att.W", "params/out/kernel", _MATRIX),
        Rule("out_att.a", "params/out/vector", _MATRIX),
    )
    return Layout("ddag", rules)
