"""What the methods of visible-infrared re-identification share: their streams, features, comparisons and checks.

A batch of them holds two modalities, the visible one first: ``facts.modalities``. Inside a network they are the streams
``visible`` and ``infrared``, whatever the data set calls them, one after the other on the batch axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmreid_jax.convert import resnet as resnet_layout
from mmreid_jax.convert import store
from mmreid_jax.errors import UserError
from mmreid_jax.methods.base import Array, Batch, Comparison, DataFacts, Variables
from mmreid_jax.models.resnet import RESNETS
from mmreid_jax.models.two_stream import MODALITIES, TwoStream

_PARTS = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")


def check(config: Any, facts: DataFacts) -> int:
    """The number of classes of a network of this config, which these data can train.

    Raises:
      UserError: an option that is not there, or data that are not visible-infrared.
    """
    model = config.model
    if len(facts.modalities) != 2:
        raise UserError(
            f"config.method {config.method!r} compares two modalities, the visible one first; the data have"
            f" {', '.join(facts.modalities)}: choose two with --config.data.modalities"
        )
    if model.backbone not in RESNETS:
        raise UserError(f"config.model.backbone is {model.backbone!r}; choose one of {', '.join(RESNETS)}")
    if model.num_classes and model.num_classes < facts.identities:
        raise UserError(
            f"config.model.num_classes is {model.num_classes}, but the training data have {facts.identities}"
            " identities; leave it 0 to count them"
        )
    if config.train.micro_batches != 1:
        raise UserError(
            f"config.train.micro_batches is {config.train.micro_batches}, but the batch normalisation of a ResNet needs"
            " the whole batch at once; set it to 1 and save memory with --config.model.remat=True"
        )
    return model.num_classes or facts.identities


def start_backbone(network: TwoStream, key: Array, image_size: Sequence[int], weights: str) -> Variables:
    """Fresh variables of a two-stream network.

    Args:
      network: the network.
      key: random key.
      image_size: height and width.
      weights: those of a ResNet (ImageNet), of which every stream gets the parts that it has; empty: none. Non-local
        blocks stay as initialised.

    Raises:
      UserError: the weights cannot be read or do not fit.
    """
    images = {stream: jnp.zeros((1, *image_size, 3)) for stream in MODALITIES}
    variables = dict(jax.jit(lambda k: network.init(k, images, False))(key))
    if not weights:
        return variables
    for stream, own in variables["params"].items():
        held = {name.split("_")[0] for name in own}
        elsewhere = {f"{part}.*": f"the {stream} stream lacks this part" for part in _PARTS if part not in held}
        loaded, _ = store.open_weights(
            weights,
            resnet_layout.layout(),
            {collection: variables[collection][stream] for collection in variables},
            keep=("*/non_local*",),
            drop=elsewhere,
        )
        for collection, tree in loaded.items():
            variables[collection] = {**variables[collection], stream: tree}
    return variables


def streams(facts: DataFacts, batch: Batch) -> dict[str, Array]:
    """The images of those modalities that a batch holds, by stream: {"visible": [B, H, W, 3], "infrared": ...}."""
    images = batch["images"]
    return {
        stream: images[modality]
        for stream, modality in zip(MODALITIES, facts.modalities, strict=True)
        if modality in images
    }


def by_modality(facts: DataFacts, batch: Batch, values: Array) -> dict[str, Array]:
    """What a network made of the images, [V + I, ...], apart: {modality: [B, ...]} for those that the batch holds."""
    images = batch["images"]
    present = [name for name in facts.modalities if name in images]
    parts = jnp.split(values, [len(images[name]) for name in present[:-1]])
    return dict(zip(present, parts, strict=True))


def named(facts: DataFacts, batch: Batch, features: Mapping[str, Array]) -> dict[str, Array]:
    """Features [V + I, D] by name -> ``<feature>_<modality>`` [B, D] for the modalities that the batch holds."""
    return {
        f"{name}_{modality}": value
        for name, values in features.items()
        for modality, value in by_modality(facts, batch, values).items()
    }


def comparisons(facts: DataFacts, features: Sequence[str], selecting: str) -> list[Comparison]:
    """Every feature both ways, infrared to visible first.

    Args:
      facts: of the data.
      features: names without the modality.
      selecting: the one that selects checkpoints, which comes first.

    Raises:
      UserError: there is no such feature.
    """
    if selecting not in features:
        raise UserError(f"config.eval.feature is {selecting!r}; choose one of {', '.join(features)}")
    visible, infrared = facts.modalities
    return [
        Comparison(f"{name} {query} to {gallery}", f"{name}_{query}", (query,), (gallery,), f"{name}_{gallery}")
        for name in sorted(features, key=lambda name: name != selecting)
        for query, gallery in ((infrared, visible), (visible, infrared))
    ]
