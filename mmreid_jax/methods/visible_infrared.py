"""What the methods of visible-infrared re-identification share: their streams, features, comparisons and checks.

A batch of them holds two modalities, the visible one first: ``facts.modalities``. Inside a network they are the streams
``visible`` and ``infrared``, whatever the data set calls them, one after the other on the batch axis. A network without
parts of its own for a modality (`shared_from` = 0) also serves data of one modality alone, as the stream ``visible``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mmreid_jax.convert import mmgl as mmgl_layout
from mmreid_jax.convert import resnet as resnet_layout
from mmreid_jax.convert import store
from mmreid_jax.errors import UserError
from mmreid_jax.methods.base import Array, Batch, Comparison, DataFacts, Variables, check_choices, classes_of
from mmreid_jax.models.resnet import RESNETS
from mmreid_jax.models.two_stream import MODALITIES, TwoStream
from mmreid_jax.training import checkpoints

_PARTS = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
_NEW = ("non_local", "aggregation", "expansion")
"""What the names of blocks begin with that a ResNet does not have."""


def check(config: Any, facts: DataFacts, *, one_spectrum: bool = False) -> int:
    """The number of classes of a network of this config, which these data can train.

    Args:
      config: of the experiment.
      facts: of the data.
      one_spectrum: whether the method can be trained on one modality alone, by a network with nothing but shared parts.

    Raises:
      UserError: an option that is not there, or data that are not visible-infrared.
    """
    model = config.model
    if one_spectrum and len(facts.modalities) == 1:
        if model.shared_from:
            raise UserError(
                f"config.model.shared_from is {model.shared_from}, but the data have {facts.modalities[0]} images"
                " alone, which need one network; set it to 0"
            )
    elif len(facts.modalities) != 2:
        raise UserError(
            f"config.method {config.method!r} compares two modalities, the visible one first; the data have"
            f" {', '.join(facts.modalities)}: choose two with --config.data.modalities"
        )
    check_choices(config, {"model.backbone": (model.backbone, tuple(RESNETS))})
    if config.train.micro_batches != 1:
        raise UserError(
            f"config.train.micro_batches is {config.train.micro_batches}, but the batch normalisation of a ResNet needs"
            " the whole batch at once; set it to 1 and save memory with --config.model.remat=True"
        )
    if config.init.backbone and config.init.from_mmgl:
        raise UserError(
            "config.init.backbone and config.init.from_mmgl are both set, but a trunk starts from one of them; leave"
            " one empty"
        )
    return classes_of(config, facts)


def init_backbone(network: TwoStream, key: Array, config: Any) -> Variables:
    """Fresh variables of a two-stream network for the images of a config."""
    # Where all is shared the second stream has no part of its own: it may be left out of data of one modality.
    images = {stream: jnp.zeros((1, *config.data.image_size, 3)) for stream in MODALITIES}
    return dict(jax.jit(lambda k: network.init(k, images, False))(key))


def start(variables: Variables, config: Any) -> Variables:
    """Variables of a method with the weights that ``config.init`` names in their ``backbone``, a two-stream network.

    Args:
      variables: {"params": {"backbone": ...}, "batch_stats": {"backbone": ...}}.
      config: of the experiment: ``config.init.backbone`` are the weights of a ResNet (ImageNet), of which every stream
        gets the parts that it has, ``config.init.from_mmgl`` is a trunk pre-trained by MMGL, see `hand_over`.

    Raises:
      UserError: the weights cannot be read or do not fit.
    """
    trunk = _started({name: tree["backbone"] for name, tree in variables.items()}, config)
    return {name: {**tree, "backbone": trunk[name]} for name, tree in variables.items()}


def _started(variables: Variables, config: Any) -> Variables:
    """The variables of a two-stream network with the weights that the config names; new blocks stay as they are."""
    weights, pretrained = config.init.backbone, config.init.from_mmgl
    if pretrained:
        return hand_over(pretrained, variables)
    variables = dict(variables)
    for stream, parts in variables["params"].items() if weights else ():
        held = {name.split("_")[0] for name in parts}
        elsewhere = {f"{part}.*": f"the {stream} stream lacks this part" for part in _PARTS if part not in held}
        loaded, _ = store.open_weights(
            weights,
            resnet_layout.layout(),
            {collection: variables[collection][stream] for collection in variables},
            keep=[f"*/{name}*" for name in _NEW],
            drop=elsewhere,
        )
        for collection, tree in loaded.items():
            variables[collection] = {**variables[collection], stream: tree}
    return variables


def hand_over(path: str, variables: Variables) -> Variables:
    """A trunk with the weights and running statistics that MMGL's pre-training gave it.

    Every part comes from the same stream of the pre-trained trunk, or from its shared stream: a stem that served both
    modalities goes to both, and so do shared stages where nothing is shared now. New blocks stay as they are.

    Args:
      path: a run's workdir, a directory made by ``python -m mmreid_jax convert``, or a flat PyTorch file.
      variables: fresh ones of the trunk, {"params": {stream: {part: ...}}, "batch_stats": ...}.

    Returns:
      The same tree, filled. How much was taken and what was left is printed.

    Raises:
      UserError: nothing there can be read, or a part of the trunk is not filled.
    """
    given = _pretrained(path)
    taken: set[tuple[str, str, str]] = set()
    counts = {"taken": 0, "kept": 0}

    def filled(collection: str, stream: str, part: str, like: Any) -> Any:
        if part.startswith(_NEW):
            counts["kept"] += len(jax.tree.leaves(like))
            return like
        sources = [name for name in (stream, "shared") if part in given[collection].get(name, {})]
        if not sources:
            raise UserError(
                f"{path} does not fill {part} of the {stream} stream; the pre-trained network must have the same"
                " config.model.backbone, and as many parts of its own for each modality (config.model.shared_from), or"
                " fewer"
            )
        pretrained = given[collection][sources[0]][part]
        taken.add((collection, sources[0], part))
        shapes = [[(p, x.shape) for p, x in jax.tree.leaves_with_path(tree)] for tree in (pretrained, like)]
        if shapes[0] != shapes[1]:
            raise UserError(f"{part} of the {stream} stream in {path} is of another shape; choose the same backbone")
        counts["taken"] += len(shapes[0])
        return jax.tree.map(lambda new, old: jnp.array(new, old.dtype), pretrained, like)

    result = {
        collection: {
            stream: {part: filled(collection, stream, part, like) for part, like in parts.items()}
            for stream, parts in streams_of.items()
        }
        for collection, streams_of in variables.items()
    }
    held = {(c, stream, part) for c, tree in given.items() for stream, parts in tree.items() for part in parts}
    if left := sorted(f"{stream}/{part}" for _, stream, part in held - taken):
        raise UserError(f"this network has no place for {left[0]} of {path}; choose the same config.model.shared_from")
    print(
        f"trunk from {path}: {counts['taken']} arrays taken, {counts['kept']} of new blocks as initialised", flush=True
    )
    return result


def _pretrained(path: str) -> dict[str, Any]:
    """The trunk {"params": {stream: ...}, "batch_stats": ...} of a pre-trained network, as numpy arrays."""
    if Path(path).is_dir() and not (Path(path) / store.META).is_file():
        whole, meta = checkpoints.load_variables(path, which="last")
        if (method := meta.get("config", {}).get("method")) != "mmgl":
            raise UserError(f"{path} holds a run of method {method!r}, not of MMGL; config.init.from_mmgl wants one")
    else:
        whole, _ = store.open_weights(path, mmgl_layout.any_layout())
    return {collection: whole[collection]["backbone"] for collection in ("params", "batch_stats")}


def streams(facts: DataFacts, batch: Batch) -> dict[str, Array]:
    """The images of those modalities that a batch holds, by stream: {"visible": [B, H, W, 3], "infrared": ...}."""
    images = batch["images"]
    return {
        stream: images[modality]
        for stream, modality in zip(MODALITIES, facts.modalities, strict=False)
        if modality in images
    }


def by_modality(facts: DataFacts, batch: Batch, values: Array) -> dict[str, Array]:
    """What a network made of the images, [V + I, ...], apart: {modality: [B, ...]} for those that the batch holds."""
    images = batch["images"]
    present = [name for name in facts.modalities if name in images]
    if len(present) == 1:
        return {present[0]: values}
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
    """Every feature both ways, infrared to visible first; of one modality alone, every feature.

    Args:
      facts: of the data.
      features: names without the modality.
      selecting: the one that selects checkpoints, which comes first.

    Raises:
      UserError: there is no such feature.
    """
    if selecting not in features:
        raise UserError(f"config.eval.feature is {selecting!r}; choose one of {', '.join(features)}")
    ordered = sorted(features, key=lambda name: name != selecting)
    if len(facts.modalities) == 1:
        (alone,) = facts.modalities
        return [Comparison(name, f"{name}_{alone}", (alone,), (alone,)) for name in ordered]
    visible, infrared = facts.modalities
    return [
        Comparison(f"{name} {query} to {gallery}", f"{name}_{query}", (query,), (gallery,), f"{name}_{gallery}")
        for name in ordered
        for query, gallery in ((infrared, visible), (visible, infrared))
    ]
