"""Two-stream networks of the AGW family (Base, AGW, CAJ): the ``net`` of the authors' checkpoints, or flat files.

A file holds three whole ResNets, of each of which the network uses a part: the stems of ``visible_module`` and
``thermal_module``, the stages of ``base_resnet``. The rest is dropped, and written again on export as copies of the
live parts, for strict loaders. `trunk`, `non_local_blocks` and `neck` are the pieces of which related families
(DDAG, MMGL) make their layouts. Reference: class ``embed_net`` of Cross-Modal-Re-ID-baseline.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmreid_jax.convert import resnet
from mmreid_jax.convert.layout import (
    POINT,
    VECTOR,
    AnyLayout,
    Layout,
    Rule,
    Variants,
    batch_norm,
    join,
    linear,
    nest,
    unused,
)

STAGES = (3, 4, 6, 3)
AGW_BLOCKS = ((2, 2), (2, 3), (3, 3), (3, 4), (3, 5))
"""(stage, block) of the blocks of a ResNet-50 that AGW's non-local blocks follow."""
# In the order of the authors' files.
_SEPARATE = {"infrared": "thermal_module.thermal.", "visible": "visible_module.visible."}
_SHARED = "base_resnet.base."
_UNUSED = "a part of the ResNet that this stream does not use"


def layout(
    non_local: Sequence[tuple[int, int]] | None = None,
    stages: tuple[int, ...] = STAGES,
    bottleneck: bool = True,
    shared_from: int = 1,
) -> AnyLayout:
    """The name map of a trained Base or AGW network.

    Args:
      non_local: (stage, block) of the blocks that a non-local block follows; None: none or AGW's, whichever the file
        has.
      stages, bottleneck: of the ResNet.
      shared_from: the first shared part of the ResNet, counted from the stem; 1 in the authors' files.
    """

    def whole(blocks: Sequence[tuple[int, int]]) -> Layout:
        return join("agw", trunk(stages, bottleneck, shared_from), non_local_blocks(blocks, shared_from), neck())

    if non_local is not None:
        return whole(non_local)
    # Of two that know as many names of a file the first is taken.
    return Variants("agw", (whole(()), whole(AGW_BLOCKS)))


def trunk(stages: tuple[int, ...] = STAGES, bottleneck: bool = True, shared_from: int = 1) -> Layout:
    """The name map of the three ResNets alone, ours below ``backbone/``; arguments as in `layout`."""
    rules = resnet.layout(stages=stages, bottleneck=bottleneck).rules
    separate = Layout("separate", tuple(rule for rule in rules if _part(rule) < shared_from))
    shared = Layout("shared", tuple(rule for rule in rules if _part(rule) >= shared_from))
    streams = []
    for stream, source in _SEPARATE.items():
        streams += [nest(separate, source, f"backbone/{stream}/"), unused(shared, source, _UNUSED, _SHARED)]
    dead = unused(separate, _SHARED, _UNUSED, _SEPARATE["visible"])
    return join("trunk", *streams, nest(shared, _SHARED, "backbone/shared/"), dead)


def non_local_blocks(blocks: Sequence[tuple[int, int]], shared_from: int = 1) -> Layout:
    """The name map of the non-local blocks after the given (stage, block) of the shared stages.

    Files number them within their stage: ``NL_3.0`` is the first of stage 3.
    """
    rules: list[Rule] = []
    for stage in sorted({stage for stage, _ in blocks if stage >= shared_from}):
        for number, block in enumerate(sorted(block for at, block in blocks if at == stage)):
            source, target = f"NL_{stage}.{number}.", f"backbone/shared/non_local{stage}_{block}/"
            rules += [*point(f"{source}g.0", f"{target}g"), *point(f"{source}W.0", f"{target}expand")]
            rules += batch_norm(f"{source}W.1", f"{target}norm")
            rules += [*point(f"{source}theta", f"{target}theta"), *point(f"{source}phi", f"{target}phi")]
    return Layout("non_local", tuple(rules))


def neck() -> Layout:
    """The name map of the batch norm after the pooling and of the classifier."""
    return Layout("neck", (*batch_norm("bottleneck", "bottleneck"), *linear("classifier", "classifier", bias=False)))


def point(source: str, target: str) -> tuple[Rule, Rule]:
    """The rules of a 1x1 convolution with bias, which is a linear layer here."""
    return (
        Rule(f"{source}.weight", f"params/{target}/kernel", POINT),
        Rule(f"{source}.bias", f"params/{target}/bias", VECTOR),
    )


def _part(rule: Rule) -> int:
    """The part of a ResNet that a rule belongs to: 0 for the stem, i for stage i."""
    name = rule.source.partition(".")[0]
    return int(name.removeprefix("layer")) if name.startswith("layer") else 0
