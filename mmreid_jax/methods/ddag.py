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
from mmreid_jax.losses import identity
from mmreid_jax.methods import visible_infrared
from mmreid_jax.methods.agw import AGW
from mmreid_jax.methods.base import Array, Batch, DataFacts, Terms, Variables
from mmreid_jax.models.graph import GraphAttention
from mmreid_jax.models.weighted_parts import WeightedParts
from mmreid_jax.training import optimizers

Memory = Mapping[str, Any]


class DDAG(AGW):
    """The method object; see `mmreid_jax.methods.base.Method` for the interface, and Base of `agw` for the trunk.

    Attributes:
      parts: the weighted-part attention, if the config wants it.
      graph: the graph attention, likewise.
      features: ``fc``, the feature after the neck, and ``fc_att``, the one refined by parts where there is one.
    """

    one_spectrum = False

    def __init__(self, config: Any, facts: DataFacts) -> None:
        model = config.model
        self.features: tuple[str, ...] = ("fc", "fc_att") if model.wpa else ("fc",)
        super().__init__(config, facts)
        self.parts = WeightedParts(model.parts) if model.wpa else None
        self.graph = None
        if model.graph:
            self.graph = GraphAttention(self.classes, model.graph_heads, model.graph_dim, model.dropout)

    @property
    def dynamic(self) -> bool:
        """Whether the weight of the graph's loss follows the other losses."""
        return self.graph is not None and self.config.loss.graph_weight < 0

    def init(self, key: Array) -> Variables:
        """Fresh variables."""
        of_network, of_parts, of_graph = jax.random.split(key, 3)
        variables = {name: {**tree} for name, tree in super().init(of_network).items()}
        pooled = jnp.zeros((1, self.backbone.features))
        if self.parts:
            parts, maps = self.parts, jnp.zeros((1, self.config.model.parts, 1, self.backbone.features))
            for name, tree in jax.jit(lambda k: parts.init(k, maps, pooled, False))(of_parts).items():
                variables[name]["parts"] = tree
        if self.graph:
            graph = self.graph
            fresh = jax.jit(lambda k: graph.init(k, pooled, jnp.ones((1, 1), bool)))(of_graph)
            variables["params"]["graph"] = fresh["params"]
        return variables

    def forward(
        self, variables: Variables, images: Mapping[str, Array], train: bool = False
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Runs the networks, but for the graph attention.

        Arguments and result as in `AGW.forward`, with ``fc_att`` [N, C] and ``logits_att`` [N, classes] of the feature
        refined by parts, where there is one.
        """
        out, stats = super().forward(variables, images, train)
        if self.parts:
            parts = {name: tree["parts"] for name, tree in variables.items()}
            out["fc_att"], new = self.parts.apply(parts, out["maps"], out["fc"], train, mutable=["batch_stats"])
            stats["parts"] = new["batch_stats"]
            # One classifier for both features.
            out["logits_att"] = out["fc_att"] @ variables["params"]["classifier"]["kernel"]
        return out, stats

    def attend_graph(self, variables: Variables, pooled: Array, labels: Array, key: Array | None) -> dict[str, Array]:
        """The graph attention of samples [N, C] with labels int [N]; see `GraphAttention` for the rest."""
        assert self.graph is not None
        neighbours = labels[:, None] == labels[None, :]
        out: Any = self.graph.apply({"params": variables["params"]["graph"]}, pooled, neighbours, key)
        return out

    def loss(
        self, variables: Variables, batch: Batch, key: Array, step: Array, memory: Memory
    ) -> tuple[Array, tuple[Terms, dict[str, Any], Memory]]:
        """Cross-entropy of both features and triplet loss; and the graph's loss by its weight.

        The weight is dynamic where ``config.loss.graph_weight`` is negative; `memory` then holds what it follows from.
        """
        options, labels = self.config.loss, jnp.tile(batch["identity"], 2)
        out, stats = self.forward(variables, visible_infrared.streams(self.facts, batch), True)
        terms: Terms = {"ce": identity.cross_entropy(out["logits"], labels, options.label_smoothing)}
        terms["triplet"], (positive, negative) = self.triplet_loss(out["pool"], labels)
        total = options.ce_weight * terms["ce"] + options.triplet_weight * terms["triplet"]
        if self.parts:
            terms["part"] = identity.cross_entropy(out["logits_att"], labels, options.label_smoothing)
            total = total + options.part_weight * terms["part"]
        terms["ranked"] = jnp.mean((negative >= positive).astype(total.dtype))
        for name, logits in visible_infrared.by_modality(self.facts, batch, out["logits"]).items():
            terms[f"accuracy_{name}"] = identity.accuracy(logits, batch["identity"])
        if self.graph:
            graph = self.attend_graph(variables, out["pool"], labels, key if self.config.model.dropout else None)
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

    def optimizer(self, params: Any, epoch_ends: np.ndarray) -> optax.GradientTransformation:
        """Trunk and new layers at the rates of ``config.optim``, weight decay on everything, biases of necks frozen."""
        frozen = optimizers.Group("(^|/)bottleneck/bias$", frozen=True)
        return optimizers.build(self.config.optim, params, epoch_ends, [frozen])

    def convert_layouts(self) -> dict[str, Any]:
        """``ddag``: the checkpoints of the authors and of MMGL."""
        network = self.backbone
        options = network.non_local, network.stages, network.bottleneck, network.shared_from
        return {"ddag": ddag_layout.layout(self.parts is not None, self.graph is not None, *options)}


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
