"""Trained networks of Hetero-Center (Neurocomputing 2020): the ``net`` of the authors' ``.t`` files.

Parts are numbered from 1, the top strip first. Reference: class ``embed_net`` of the authors' code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from mmreid_jax.convert import resnet
from mmreid_jax.convert.layout import Drop, Layout, Rule, Variants, batch_norm, join, linear, nest

STREAMS = {"visible": "visible_net.visible.", "infrared": "thermal_net.thermal."}
"""Stream -> prefix of the authors' names, in their order."""
# The dropout in front of a classifier shifts its number in the authors' sequence of layers.
_WITHOUT_DROPOUT, _WITH_DROPOUT = 1, 2
_IMAGENET_CLASSES = 1000


def layout(dropout: bool = False) -> Variants:
    """The name map of a trained network.

    Args:
      dropout: export under the names that the authors' code gives a network with dropout; both forms are read.
    """
    forms = (_WITH_DROPOUT, _WITHOUT_DROPOUT) if dropout else (_WITHOUT_DROPOUT, _WITH_DROPOUT)
    streams = [_stream(stream, source) for stream, source in STREAMS.items()]
    return Variants("hetero_center", tuple(join("hetero_center", *streams, heads(index)) for index in forms))


def heads(classifier_index: int = _WITHOUT_DROPOUT) -> Layout:
    """The name map of the embeddings and classifiers of the parts.

    Args:
      classifier_index: number of the linear layer in a classifier's sequence.
    """
    rules = (
        *linear("feature{part}.feat_block.0", "embed/linear"),
        *batch_norm("feature{part}.feat_block.1", "embed/norm"),
        *linear(f"classifier{{part}}.classifier.{classifier_index}", "classifier"),
    )
    return Layout("hetero_center", tuple(dataclasses.replace(rule, first=1) for rule in rules))


def _stream(stream: str, source: str) -> Layout:
    """A ResNet of any depth with the ImageNet classifier that the authors keep and never use; exported as zeros."""
    rules: tuple[Rule, ...] = nest(resnet.layout(), source, f"backbone/{stream}/").rules
    reason = "ImageNet classifier, which the network never uses"

    def weight(exported: Mapping[str, np.ndarray]) -> np.ndarray:
        like = exported["feature1.feat_block.0.weight"]
        return np.zeros((_IMAGENET_CLASSES, like.shape[1]), like.dtype)

    def bias(exported: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.zeros(_IMAGENET_CLASSES, exported["feature1.feat_block.0.weight"].dtype)

    drops = (Drop(f"{source}fc.weight", reason, weight), Drop(f"{source}fc.bias", reason, bias))
    return Layout("hetero_center", rules, drops)
