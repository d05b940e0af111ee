"""DDAG: dynamic dual-attentive aggregation for visible-infrared person re-identification.

A ResNet-50 whose stem exists once for each modality. Beside the usual neck, parts of an image attend to one another and
refine its feature; in training the samples of a batch attend to those of their identity in both modalities, and the
loss of that graph counts the more the lower the others have become.

Reference: Ye, Shen, Crandall, Shao, Luo. Dynamic Dual-Attentive Aggregation Learning for Visible-Infrared Person
Re-Identification, ECCV 2020; the authors' code and MMGL's copy of it, which are followed where the paper differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmreid_jax.convert import ddag as ddag_layout
from mmreid_jax.losses import identity, triplet
from mmreid_jax.losses.vectors import l2_normalise
from mmreid_jax.methods import visible_infrared
from mmreid_jax.methods.base import Array, Batch, Comparison, DataFacts, Terms, Variables
from mmreid_jax.models.graph import GraphAttention
from mmreid_jax.models.heads import BNNeck
from mmreid_jax.models.resnet import RESNETS, ResNet, average_pool
from mmreid_jax.models.two_stream import TwoStream
from mmreid_jax.models.weighted_parts import WeightedParts
from mmreid_jax.training import optimizers

Memory = Mapping[str, Any]


class DDAG:
    """The method object; see `mmreid_jax.methods.base.Method` for the interface.

    Attributes:
      config: of the experiment (``config.model``, ``config.loss``, ``config.optim``, ``config.train``,
        ``config.init``).
      facts: of the training data; the visible modality comes first.
      backbone: network of both modalities, images -> feature maps.
      neck: batch norm and classifier of the pooled feature.
      parts: the weighted-part attention, if the config wants it.
      graph: the graph attention, likewise.
    """

    def __init__(self, config: Any, facts: DataFacts) -> None:
        model = config.model
        self.config = config
        self.facts = facts
        self.classes = visible_infrared.check(config, facts)
        self.backbone = TwoStream(
            **RESNETS[model.backbone],
            shared_from=1,
            last_stride=model.last_stride,
            dtype=jnp.dtype(model.dtype) if model.dtype != "float32" else None,
            remat=model.remat,
        )
        self.neck = BNNeck(self.classes)
        self.parts = WeightedParts(model.parts) if model.wpa else None
        self.graph = None
        if model.graph:
            self.graph = GraphAttention(self.classes, model.graph_heads, model.graph_dim, model.dropout)
        self.protocols()

    @property
    def features(self) -> tuple[str, ...]:
        """``fc``, the feature after the neck, and ``fc_att``, the one refined by parts."""
        return ("fc", "fc_att") if self.parts else ("fc",)

    @property
    def dynamic(self) -> bool:
        """Whether the weight of the graph's loss follows the other losses."""
        return self.graph is not None and self.config.loss.graph_weight < 0

    def init(self, key: Array) -> Variables:
        """Fresh variables; ``config.init.backbone`` (ImageNet weights) goes into the stems and the shared stages."""
        keys = jax.random.split(key, 4)
        model = self.config.model
        width = ResNet(**RESNETS[model.backbone]).features
        maps, pooled = jnp.zeros((1, model.parts, 1, width)), jnp.zeros((1, width))
        options = self.config.data.image_size, self.config.init.backbone
        neck = jax.jit(lambda k: self.neck.init(k, pooled, False))(keys[0])
        found = {name: {**tree} for name, tree in neck.items()}
        modules = {"backbone": visible_infrared.start_backbone(self.backbone, keys[1], *options)}
        if self.parts:
            parts = self.parts
            modules["parts"] = jax.jit(lambda k: parts.init(k, maps, pooled, False))(keys[2])
        if self.graph:
            graph = self.graph
            modules["graph"] = jax.jit(lambda k: graph.init(k, pooled, jnp.ones((1, 1), bool)))(keys[3])
        for module, collections in modules.items():
            for collection, tree in collections.items():
                found[collection][module] = tree
        return found

    def forward(
        self, variables: Variables, batch: Batch, train: bool = False
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Runs the networks, but for the graph attention.

        Args:
          variables: of the method.
          batch: with float ``images`` of one modality [B, H, W, 3] or of both; N of them in all.
          train: normalise by batch statistics and update the running ones.

        Returns:
          By name, the visible images first: ``maps`` [N, h, w, C], ``pool`` [N, C], ``fc`` [N, C] and ``logits``
          [N, classes] after the neck, ``fc_att`` and ``logits_att`` of the part-refined feature where there is one; and
          the new batch statistics.
        """
        params, old = variables["params"], variables["batch_stats"]
        images = visible_infrared.streams(self.facts, batch)
        backbone = {"params": params["backbone"], "batch_stats": old["backbone"]}
        maps, new = self.backbone.apply(backbone, images, train, mutable=["batch_stats"])
        stats = {"backbone": new["batch_stats"]}
        pooled = average_pool(maps)
        neck = {
            "params": {name: params[name] for name in ("bottleneck", "classifier")},
            "batch_stats": {"bottleneck": old["bottleneck"]},
        }
        (features, logits), new = self.neck.apply(neck, pooled, train, mutable=["batch_stats"])
        stats.update(new["batch_stats"])
        out = {"maps": maps, "pool": pooled, "fc": features, "logits": logits}
        if self.parts:
            parts = {"params": params["parts"], "batch_stats": old["parts"]}
            out["fc_att"], new = self.parts.apply(parts, maps, features, train, mutable=["batch_stats"])
            stats["parts"] = new["batch_stats"]
            # One classifier for both features.
            out["logits_att"] = out["fc_att"] @ params["classifier"]["kernel"]
        return out, stats

    def attend(self, variables: Variables, pooled: Array, labels: Array, key: Array | None) -> dict[str, Array]:
        """The graph attention of samples [N, C] with labels int [N]; see `GraphAttention` for the rest."""
        assert self.graph is not None
        neighbours = labels[:, None] == labels[None, :]
        return self.graph.apply({"params": variables["params"]["graph"]}, pooled, neighbours, key)

    def loss(
        self, variables: Variables, batch: Batch, key: Array, step: Array, memory: Memory
    ) -> tuple[Array, tuple[Terms, dict[str, Any], Memory]]:
        """Cross-entropy of both features and triplet loss; and the graph's loss by its weight.

        The weight is dynamic where ``config.loss.graph_weight`` is negative; `memory` then holds what it follows from.
        """
        options, labels = self.config.loss, jnp.tile(batch["identity"], 2)
        out, stats = self.forward(variables, batch, True)
        terms: Terms = {"ce": identity.cross_entropy(out["logits"], labels, options.label_smoothing)}
        terms["triplet"], (positive, negative) = triplet.batch_hard_triplet(out["pool"], labels, options.triplet_margin)
        total = options.ce_weight * terms["ce"] + options.triplet_weight * terms["triplet"]
        if self.parts:
            terms["part"] = identity.cross_entropy(out["logits_att"], labels, options.label_smoothing)
            total = total + options.part_weight * terms["part"]
        terms["ranked"] = jnp.mean((negative >= positive).astype(total.dtype))
        for name, logits in visible_infrared.by_modality(self.facts, batch, out["logits"]).items():
            terms[f"accuracy_{name}"] = identity.accuracy(logits, batch["identity"])
        if self.graph:
            graph = self.attend(variables, out["pool"], labels, key if self.config.model.dropout else None)
            terms["graph"] = identity.cross_entropy(graph["logits"], labels)
            weight = jnp.asarray(options.graph_weight, total.dtype)
            if self.dynamic:
                memory = weigh(memory, step)
                weight = memory["weight"].astype(total.dtype)
                memory = note(memory, jax.lax.stop_gradient(total))
            terms["graph_weight"] = weight
            total = total + weight * terms["graph"]
        return total, (terms, stats, memory)

    def start_memory(self, epoch_ends: np.ndarray) -> dict[str, Any]:
        """What the dynamic weight follows from; nothing where it is fixed."""
        return start_weighting(epoch_ends) if self.dynamic else {}

    def embed(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """``fc_<modality>`` and ``fc_att_<modality>``, [B, C] of length one."""
        out, _ = self.forward(variables, batch)
        features = {name: l2_normalise(out[name]) for name in self.features}
        return visible_infrared.named(self.facts, batch, features)

    def maps(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """The last feature maps of each modality of the batch: [B, h, w, C]."""
        out, _ = self.forward(variables, batch)
        return visible_infrared.by_modality(self.facts, batch, out["maps"])

    def optimizer(self, params: Any, epoch_ends: np.ndarray) -> optax.GradientTransformation:
        """The backbone at a part of the rate, weight decay on everything, the biases of the necks frozen."""
        options = self.config.optim
        groups = [
            optimizers.Group("(^|/)bottleneck/bias$", frozen=True),
            optimizers.Group("^backbone/", lr_factor=options.base_lr_factor),
        ]
        return optimizers.build(options, params, epoch_ends, groups)

    def protocols(self) -> list[Comparison]:
        """Every feature both ways."""
        return visible_infrared.comparisons(self.facts, self.features, self.config.eval.feature)

    def convert_layouts(self) -> dict[str, Any]:
        """``ddag``: the checkpoints of the authors and of MMGL."""
        stages = RESNETS[self.config.model.backbone]["stages"]
        return {"ddag": ddag_layout.layout(self.parts is not None, self.graph is not None, stages)}


def start_weighting(epoch_ends: np.ndarray) -> dict[str, Any]:
    """The memory of the dynamic weight before the first step.

    Args:
      epoch_ends: int [epochs], cumulative number of steps.

    Returns:
      ``epoch_ends`` int32 [epochs]; the ``weight`` of the running epoch; ``sum`` and ``count`` of the losses in it.
    """
    zero = np.zeros((), jnp.result_type(float))
    return {
        "epoch_ends": np.asarray(epoch_ends, np.int32),
        "weight": zero,
        "sum": zero.copy(),
        "count": np.zeros((), np.int32),
    }


def weigh(memory: Memory, step: Array | int) -> dict[str, Any]:
    """The memory with the weight of a step: 0 in the first epoch, then 1 / (1 + mean loss of the epoch before).

    Reference: equations 10 and 11 of the paper; the losses are those without the graph's.
    """
    begins = jnp.any(memory["epoch_ends"] == step)
    mean = memory["sum"] / jnp.maximum(memory["count"], 1)
    return {
        **memory,
        "weight": jnp.where(begins, 1.0 / (1.0 + mean), memory["weight"]),
        "sum": jnp.where(begins, 0.0, memory["sum"]),
        "count": jnp.where(begins, 0, memory["count"]),
    }


def note(memory: Memory, loss: Array) -> dict[str, Any]:
    """The memory after a step of this loss."""
    total = memory["sum"] + jnp.asarray(loss, memory["sum"].dtype)
    return {**memory, "sum": total, "count": memory["count"] + 1}


def build(config: Any, facts: DataFacts) -> DDAG:
    """Builds DDAG from a config such as ``configs/ddag_sysu.py``."""
    return DDAG(config, facts)
