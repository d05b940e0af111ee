"""Trained networks of IEEE (AAAI 2022): the ``state_dict`` of torchreid's ``model.pth.tar`` files.

Streams are numbered in the order of the modalities (RGB, NIR, TIR), heads carry their letter. Reference: table 3.2 of
the authors' network, class ``ieee3modalPart``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mmreid_jax.convert import resnet
from mmreid_jax.convert.layout import (
    POINT,
    VECTOR,
    AnyLayout,
    Layout,
    Rule,
    Variants,
    batch_norm,
    conv,
    join,
    linear,
    nest,
)

MODALITIES = ("rgb", "nir", "tir")
LETTERS = {"rgb": "R", "nir": "N", "tir": "T"}
# Parity: the authors create these layers in this order, which strict tools compare.
_ORDER_OF_EMBEDDINGS = "RTN"


def layout(
    modalities: Sequence[str] = MODALITIES,
    *,
    interaction: bool | None = None,
    attention: bool | None = None,
    relation: str | None = None,
) -> AnyLayout:
    """The name map of a trained IEEE network; the switches are those of the ablation, None: whatever the file has.

    Args:
      modalities: names in the order of the streams.
      interaction: whether there is a cross-modal interacting module.
      attention: whether it has channel attention.
      relation: "code" (with a gate), "paper" (without) or "off".
    """
    # Of two that know as many names of a file the first is taken, so those with fewer layers come first.
    combinations = [(False, False), (True, False), (True, True)]
    variants = [
        _whole(modalities, inside, attends, form)
        for inside, attends in combinations
        for form in ("off", "paper", "code")
        if interaction in (None, inside) and attention in (None, attends) and relation in (None, form)
    ]
    return variants[0] if len(variants) == 1 else Variants("ieee", tuple(variants))


def _whole(modalities: Sequence[str], interaction: bool, attention: bool, relation: str) -> Layout:
    numbered = list(enumerate(modalities))
    backbones = [nest(resnet.layout(), f"backbone.{i}.", f"backbone/{name}/") for i, name in numbered]
    rules: list[Rule] = []
    if interaction:
        for source, target in (("convOne", "own"), ("convAvgRest", "rest")):
            rules += _each(_conv_norm(f"{source}.{i}", f"{target}/{name}") for i, name in numbered)
    if attention:
        for i, name in numbered:
            rules += [
                Rule(f"CA.{i}.fc.0.weight", f"params/attention/{name}/squeeze/kernel", POINT),
                Rule(f"CA.{i}.fc.2.weight", f"params/attention/{name}/excite/kernel", POINT),
            ]
    rules += _each(_conv_norm(f"reduce_layer.{i}", f"reduce/{name}") for i, name in numbered)
    if relation != "off":
        for i, name in numbered:
            if relation == "code":
                rules.append(Rule(f"REM.{i}.param", f"params/relation/{name}/gamma", VECTOR))
            for part in ("query", "part", "value"):
                rules += linear(f"REM.{i}.conv_{part}", f"relation/{name}/{part}")
    for name in sorted(modalities, key=lambda name: _ORDER_OF_EMBEDDINGS.index(LETTERS[name])):
        source = f"fc_{LETTERS[name]}.{{part}}"
        rules += [*linear(f"{source}.0", f"embed/{name}/linear"), *batch_norm(f"{source}.1", f"embed/{name}/norm")]
    for name in modalities:
        rules += linear(f"classifier_{LETTERS[name]}.{{part}}", f"classifier/{name}")
    return join("ieee", *backbones, Layout("ieee", tuple(rules)))


def _conv_norm(source: str, target: str) -> list[Rule]:
    return [*conv(f"{source}.layers.0", f"{target}/conv"), *batch_norm(f"{source}.layers.1", f"{target}/norm")]


def _each(rules: Iterable[list[Rule]]) -> list[Rule]:
    return [rule for group in rules for rule in group]
