"""Networks pre-trained by MMGL: flat files in the names that its authors' fine-tuning code reads.

The trunk is that of AGW, of which these files hold the live parts alone; a network with one stem for both modalities
has it below ``base_resnet``. Heads are called as the authors' loader calls those that it throws away: ``fc1``, ``fc2``
and ``local_conv_list``. Reference: the loader of MMGL's ``train.py``.
"""

from __future__ import annotations

import dataclasses
import itertools

from mmreid_jax.convert import two_stream
from mmreid_jax.convert.layout import POINT, VECTOR, AnyLayout, Layout, Rule, Variants, batch_norm, join, linear


def layout(
    stages: tuple[int, ...] = two_stream.STAGES,
    bottleneck: bool = True,
    shared_from: int = 1,
    *,
    hidden: bool | None = False,
    head: str | None = "conv_bn_relu",
    shared: bool = False,
) -> Layout:
    """The name map of a network.

    Args:
      stages, bottleneck, shared_from: of the trunk, see `two_stream.layout`.
      hidden: whether the head of the order has a hidden layer; None: there is no such head.
      head: form of the projections of the stripes, with batch norm ("conv_bn_relu") or without ("conv"); None: there
        are none.
      shared: whether one projection serves all stripes.
    """
    whole = two_stream.trunk(stages, bottleneck, shared_from)
    # Parts that a network does not use are not asked for on the way out.
    trunk = dataclasses.replace(whole, drops=tuple(dataclasses.replace(drop, fill=None) for drop in whole.drops))
    return join("mmgl", trunk, heads(hidden, head, shared))


def heads(hidden: bool | None = False, head: str | None = "conv_bn_relu", shared: bool = False) -> Layout:
    """The name map of the heads alone; arguments as in `layout`."""
    rules: list[Rule] = []
    if hidden is not None:
        rules += linear("fc1", "order/fc1")
        rules += linear("fc2", "order/fc2") if hidden else ()
    if head is not None:
        source, target = (
            ("local_conv_list.0", "projections/all") if shared else ("local_conv_list.{s}", "projections/each")
        )
        rules += [
            Rule(f"{source}.0.weight", f"params/{target}/conv/kernel", POINT),
            Rule(f"{source}.0.bias", f"params/{target}/conv/bias", VECTOR),
        ]
        rules += batch_norm(f"{source}.1", f"{target}/norm") if head == "conv_bn_relu" else ()
    return Layout("heads", tuple(rules))


def any_layout() -> AnyLayout:
    """The name map of a file of which nothing is known but that a ResNet-50 is in it."""
    # Of those that know as many names of a file the first is taken, so those with fewer layers come first.
    choices = itertools.product((1, 0), (None, False, True), (None, "conv", "conv_bn_relu"), (True, False))
    return Variants(
        "mmgl",
        tuple(
            layout(shared_from=first, hidden=hidden, head=head, shared=shared)
            for first, hidden, head, shared in choices
        ),
    )
