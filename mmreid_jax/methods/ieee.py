"""IEEE: interact, embed and enlarge, for multi-modal person re-identification.

A ResNet-50 for each modality, features exchanged between them, six horizontal parts with an embedding and a classifier
each; trained with cross-entropy on every part and the 3M loss between modalities.

Reference: Wang, Li, Zheng, He, Tang. Interact, Embed, and EnlargE (IEEE): Boosting Modality-specific Representations
for Multi-Modal Person Re-identification, AAAI 2022; files ``models/ieee3modalPart.py`` and ``engine/image/margin.py``
of the authors' fork of torchreid. Where paper and code differ the code is followed, and the paper is a config value.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmreid_jax.convert import ieee as ieee_layout
from mmreid_jax.convert import resnet as resnet_layout
from mmreid_jax.convert import store
from mmreid_jax.errors import UserError
from mmreid_jax.losses import centers, identity, margins, triplet
from mmreid_jax.methods import modality_sets
from mmreid_jax.methods.base import Array, Batch, Comparison, DataFacts, Terms, Variables, check_choices, classes_of
from mmreid_jax.models import ieee as networks
from mmreid_jax.models.resnet import RESNETS, ResNet
from mmreid_jax.training import optimizers, staged

LAYERS = ("backbone", *networks.LAYERS)
"""Top-level names of the parameters; below each of them one tree per modality."""
LOSSES = ("margin", "softmax", "triplet", "hcloss")
STREAMS = ("loop", "vmap")
_EVERY = frozenset(LAYERS)
_NONE: frozenset[str] = frozenset()
# Parity: the authors concatenate in this order, which is not that of the modalities.
_CONCATENATED = ("tir", "rgb", "nir")


class IEEE(modality_sets.ComparesWhole):
    """The method object; see `mmreid_jax.methods.base.Method` for the interface.

    Attributes:
      config: of the experiment (``config.model``, ``config.loss``, ``config.optim``, ``config.train``,
        ``config.init``).
      facts: of the training data; two modalities are as good as three.
      backbone: network of one modality, images -> feature map.
      branch: network of one modality, feature maps -> parts, embeddings and logits.
    """

    def __init__(self, config: Any, facts: DataFacts) -> None:
        model, train = config.model, config.train
        self.config = config
        self.facts = facts
        self.classes = classes_of(config, facts)
        self.image_size = tuple(config.data.image_size)
        self.concatenated = sorted(facts.modalities, key=_CONCATENATED.index)
        check_choices(
            config,
            {
                "model.backbone": (model.backbone, tuple(RESNETS)),
                "model.streams": (model.streams, STREAMS),
                "loss.name": (config.loss.name, LOSSES),
            },
        )
        if len(facts.modalities) < 2:
            raise UserError(f"IEEE compares modalities and needs two or three; the data have {facts.modalities}")
        if train.micro_batches != 1:
            raise UserError(
                f"config.train.micro_batches is {train.micro_batches}, but the batch normalisation of IEEE's backbones"
                " needs the whole batch at once; set it to 1 and save memory with --config.model.remat=True"
            )
        self.open_layers = tuple(train.open_layers)
        unknown = [name for name in self.open_layers if name not in LAYERS]
        if unknown or (train.fixbase_epochs and not self.open_layers):
            raise UserError(
                f"config.train.open_layers is {self.open_layers}; name the layers that train in the first"
                f" config.train.fixbase_epochs epochs, of {', '.join(LAYERS)}"
            )
        dtype = jnp.dtype(model.dtype) if model.dtype != "float32" else None
        self.backbone = ResNet(**RESNETS[model.backbone], last_stride=model.last_stride, dtype=dtype, remat=model.remat)
        self.branch = networks.Branch(
            self.classes,
            parts=model.parts,
            part_dim=model.part_dim,
            embed_dim=model.embed_dim,
            interact=model.cim,
            attend=model.cim_attention,
            relation=model.rem,
            global_from=model.global_from,
            dtype=dtype,
        )

    @property
    def idle(self) -> tuple[str, ...]:
        """Patterns of parameters that no gradient reaches: those of the code's relation that change nothing."""
        return ("^relation/[^/]+/(query|value)/",) if self.config.model.rem == "code" else ()

    def init(self, key: Array) -> Variables:
        """Fresh variables."""
        images = jnp.zeros((1, *self.image_size, 3))
        maps = jnp.zeros((2, 6, 1, self.backbone.features))
        keys = jax.random.split(key, 2 * len(self.facts.modalities)).reshape(2, -1)
        # One after the other: the same as vmap, in less time to compile.
        backbones = jax.jit(
            lambda k: jax.lax.map(lambda of_modality: self.backbone.init(of_modality, images, True), k)
        )(keys[0])
        branches = jax.jit(
            lambda k: jax.lax.map(lambda of_modality: self.branch.init(of_modality, maps, maps, _EVERY), k)
        )(keys[1])
        networks_of = []
        for number in range(len(self.facts.modalities)):
            backbone, branch = jax.tree.map(lambda x, i=number: x[i], (backbones, branches))
            networks_of.append(
                {name: {"backbone": backbone[name], **branch[name]} for name in ("params", "batch_stats")}
            )
        return self._join(networks_of)

    def start(self, variables: Variables) -> Variables:
        """The variables with ``config.init.backbone`` (ImageNet weights) in the backbone of every modality."""
        if not self.config.init.backbone:
            return variables
        fresh = self._by_modality(variables, ("backbone",))[0]
        like = {name: tree["backbone"] for name, tree in fresh.items()}
        loaded, _ = store.open_weights(self.config.init.backbone, resnet_layout.layout(), like)
        # Copies: a step takes the memory of each.
        backbones = [jax.tree.map(np.array, loaded) for _ in self.facts.modalities]
        started = self._join([{name: {"backbone": tree} for name, tree in each.items()} for each in backbones])
        return {name: {**tree, **started[name]} for name, tree in variables.items()}

    def _join(self, trees: list[dict[str, Any]]) -> dict[str, Any]:
        """Trees {collection: {layer: ...}} of the modalities in order -> {collection: {layer: {modality: ...}}}."""

        def named(layer: str, collection: str) -> dict[str, Any]:
            return {name: t[collection][layer] for name, t in zip(self.facts.modalities, trees, strict=True)}

        return {each: {layer: named(layer, each) for layer in layers} for each, layers in trees[0].items()}

    def _by_modality(self, variables: Variables, layers: tuple[str, ...]) -> list[dict[str, Any]]:
        """The inverse for some layers: a tree {collection: {layer: ...}} for every modality."""
        return [
            {
                collection: {layer: tree[name] for layer, tree in variables[collection].items() if layer in layers}
                for collection in ("params", "batch_stats")
            }
            for name in self.facts.modalities
        ]

    def _for_each(self, function: Any, *arguments: list[Any]) -> list[Any]:
        """`function` of the modalities' arguments: one after the other, or of all of them stacked, by vmap.

        Both compute the same; why the loop is the default: docs/architecture.md.
        """
        if self.config.model.streams == "loop":
            return [function(*each) for each in zip(*arguments, strict=True)]
        stacked = [jax.tree.map(lambda *x: jnp.stack(x), *each) for each in arguments]
        out = jax.vmap(function)(*stacked)
        return [jax.tree.map(lambda x, i=number: x[i], out) for number in range(len(self.facts.modalities))]

    def forward(
        self, variables: Variables, batch: Batch, train: frozenset[str] = _NONE
    ) -> tuple[list[dict[str, Array]], dict[str, Any]]:
        """Runs the networks.

        Args:
          variables: of the method.
          batch: with float ``images`` {modality: [B, H, W, 3]}.
          train: names of the `LAYERS` that normalise by batch statistics and update their running ones.

        Returns:
          What `networks.Branch` returns, with the backbone's ``backbone`` [B, h, w, C], for every modality in order;
          and the new batch statistics.
        """

        def embed(network: Variables, images: Array) -> tuple[Array, Any]:
            tree = {name: value["backbone"] for name, value in network.items()}
            maps: Any
            if "backbone" not in train:
                maps = self.backbone.apply(tree, images, False)
                return maps, tree["batch_stats"]
            maps, new = self.backbone.apply(tree, images, True, mutable=["batch_stats"])
            return maps, new["batch_stats"]

        def branch(network: Variables, maps_of: Array, others: Array) -> tuple[dict[str, Array], Any]:
            out: Any
            if not train:
                out = self.branch.apply(network, maps_of, others)
                return out, network["batch_stats"]
            out, new = self.branch.apply(network, maps_of, others, train, mutable=["batch_stats"])
            return out, new["batch_stats"]

        images = [batch["images"][name] for name in self.facts.modalities]
        maps, backbone_stats = zip(
            *self._for_each(embed, self._by_modality(variables, ("backbone",)), images), strict=True
        )
        # Parity: the rest is the sum of the other maps, although the code calls it an average.
        others = [sum(maps[:i] + maps[i + 1 :], start=jnp.zeros_like(maps[i])) for i in range(len(maps))]
        out, stats = zip(
            *self._for_each(branch, self._by_modality(variables, networks.LAYERS), list(maps), others), strict=True
        )
        new = [{"batch_stats": {"backbone": b, **s}} for b, s in zip(backbone_stats, stats, strict=True)]
        return [{"backbone": m, **o} for m, o in zip(maps, out, strict=True)], self._join(new)["batch_stats"]

    def loss(
        self, variables: Variables, batch: Batch, key: Array, step: Array, memory: Mapping[str, Any]
    ) -> tuple[Array, tuple[Terms, dict[str, Any], Mapping[str, Any]]]:
        """Sum of the cross-entropies of all parts and modalities, and the loss between modalities.

        In the first ``config.train.fixbase_epochs`` epochs only ``config.train.open_layers`` train: the others pass no
        gradient and normalise by their running statistics. `memory` then says when that ends (`start_memory`).
        """
        del key
        if not self.config.train.fixbase_epochs:
            return self._loss(variables, batch, memory, _EVERY)
        opened = frozenset(self.open_layers)
        return jax.lax.cond(
            step < memory["all_open_from"],
            lambda v: self._loss(v, batch, memory, opened),
            lambda v: self._loss(v, batch, memory, _EVERY),
            variables,
        )

    def _loss(
        self, variables: Variables, batch: Batch, memory: Mapping[str, Any], train: frozenset[str]
    ) -> tuple[Array, tuple[Terms, dict[str, Any], Mapping[str, Any]]]:
        options, labels = self.config.loss, batch["identity"]
        params = {
            layer: tree if layer in train else jax.lax.stop_gradient(tree)
            for layer, tree in variables["params"].items()
        }
        outputs, stats = self.forward({**variables, "params": params}, batch, train)
        embeddings = jnp.stack([out["embedding"] for out in outputs])
        # [M, B, P, C] -> cross-entropy of every modality, summed over its parts: [M].
        logits = jnp.stack([out["logits"] for out in outputs])
        entropy = jax.vmap(
            jax.vmap(lambda x: identity.cross_entropy(x, labels, options.label_smoothing), in_axes=1), in_axes=0
        )
        by_modality = entropy(logits).sum(1)
        terms: Terms = {"ce": by_modality.sum()}
        between = self._between(embeddings, labels)
        total = options.weight_x * terms["ce"]
        if between is not None:
            terms["between"] = between
            total = total + options.weight_m * between
        right = (logits.argmax(-1) == labels[:, None]).mean((1, 2))
        for number, name in enumerate(self.facts.modalities):
            terms[f"ce_{name}"] = by_modality[number]
            terms[f"accuracy_{name}"] = right[number]
        return total, (terms, stats, memory)

    def _between(self, embeddings: Array, labels: Array) -> Array | None:
        """The loss beside the cross-entropy, on the embeddings [M, B, D] of the modalities; None: there is none."""
        options = self.config.loss
        if options.name == "softmax":
            return None
        if options.name == "triplet":
            whole = self._concatenate(list(embeddings))
            return triplet.batch_hard_triplet(whole, labels, options.triplet_margin, normalize=True)[0]
        shared = {"grouping": options.grouping, "num_identities": self.config.train.identities_per_batch}
        if options.name == "hcloss":
            return centers.hetero_center_loss(embeddings, labels, **shared)
        return margins.three_modal_margin_loss(embeddings, labels, margin=options.margin, **shared)

    def _concatenate(self, features: list[Array]) -> Array:
        """Features [B, D] of the modalities in order -> [B, M * D] in the authors' order."""
        by_name = dict(zip(self.facts.modalities, features, strict=True))
        return jnp.concatenate([by_name[name] for name in self.concatenated], axis=-1)

    def embed(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """``whole`` [B, M * parts * embed_dim], in the order TIR, RGB, NIR, and each modality by name; any length."""
        outputs, _ = self.forward(variables, batch)
        features = [out["embedding"] for out in outputs]
        return {"whole": self._concatenate(features), **dict(zip(self.facts.modalities, features, strict=True))}

    def maps(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """The maps that the parts are pooled from, for each modality: [B, h, w, C]."""
        outputs, _ = self.forward(variables, batch)
        return {name: out["maps"] for name, out in zip(self.facts.modalities, outputs, strict=True)}

    def start_memory(self, epoch_ends: np.ndarray) -> dict[str, Any]:
        """The step from which on all layers train; nothing where they do from the beginning."""
        count = self.config.train.fixbase_epochs
        return {"all_open_from": np.int32(staged.steps_of(count, epoch_ends))} if count else {}

    def optimizer(self, params: Any, epoch_ends: np.ndarray) -> optax.GradientTransformation:
        """One group with weight decay on everything; the code's dead value projection is left alone, as in PyTorch."""
        train = self.config.train
        frozen = [optimizers.Group("^relation/[^/]+/value/", frozen=True)] if self.config.model.rem == "code" else []
        if not train.fixbase_epochs:
            return optimizers.build(self.config.optim, params, epoch_ends, frozen)
        return staged.build(
            self.config.optim, params, epoch_ends, frozen, first=self.open_layers, epochs=train.fixbase_epochs
        )

    def comparisons(self) -> list[Comparison]:
        """All modalities, or those that the config names; with ``config.eval.cross_modal`` each against each other."""
        compared = [modality_sets.usual(self, self.facts.modalities, self.config.eval)]
        if self.config.eval.cross_modal:
            compared += [
                Comparison(f"{query} to {gallery}", query, (query,), (gallery,), gallery_feature=gallery)
                for query, gallery in itertools.permutations(self.facts.modalities, 2)
            ]
        return compared

    def convert_layouts(self) -> dict[str, Any]:
        """``ieee``: the authors' checkpoints."""
        model = self.config.model
        layout = ieee_layout.layout(
            self.facts.modalities,
            interaction=model.cim,
            attention=model.cim and model.cim_attention,
            relation=model.rem,
        )
        return {"ieee": layout}


def build(config: Any, facts: DataFacts) -> IEEE:
    """Builds IEEE from a config such as ``configs/ieee_rgbnt201.py``."""
    return IEEE(config, facts)
