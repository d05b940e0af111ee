"""Hetero-Center: two networks whose part features of an identity have their centres pulled together.

A ResNet-50 for each modality, nothing shared; six horizontal strips with an embedding and a classifier each, which both
modalities share; trained with cross-entropy and the hetero-center loss on every strip.

Reference: Zhu, Yang, Wang, Zhao, Hu, Tao. Hetero-Center Loss for Cross-Modality Person Re-Identification,
Neurocomputing 386 (2020), and the authors' code, which is followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmreid_jax.convert import hetero_center as hc_layout
from mmreid_jax.losses import centers, identity, margins
from mmreid_jax.losses.vectors import check_distance, l2_normalise
from mmreid_jax.methods import visible_infrared
from mmreid_jax.methods.base import Array, Batch, Comparison, DataFacts, Terms, Variables
from mmreid_jax.models.resnet import RESNETS
from mmreid_jax.models.strips import StripHeads, strip_pool
from mmreid_jax.models.two_stream import TwoStream
from mmreid_jax.training import optimizers

FEATURES = ("fc", "pool")
"""The normalised embeddings of all strips side by side, and the normalised strips themselves."""


class HeteroCenter:
    """The method object; see `mmreid_jax.methods.base.Method` for the interface.

    Attributes:
      config: of the experiment (``config.model``, ``config.loss``, ``config.optim``, ``config.train``,
        ``config.init``).
      facts: of the training data; the visible modality comes first.
      backbone: networks of both modalities, images -> feature maps.
      heads: embeddings and classifiers of the strips.
    """

    def __init__(self, config: Any, facts: DataFacts) -> None:
        model = config.model
        self.config = config
        self.facts = facts
        self.classes = visible_infrared.check(config, facts)
        check_distance(config.loss.distance)
        options = RESNETS[model.backbone]
        self.backbone = TwoStream(
            **options,
            shared_from=len(options["stages"]) + 1,
            last_stride=model.last_stride,
            dtype=jnp.dtype(model.dtype) if model.dtype != "float32" else None,
            remat=model.remat,
        )
        self.heads = StripHeads(self.classes, model.embed_dim, model.dropout)
        self.comparisons()

    def init(self, key: Array) -> Variables:
        """Fresh variables."""
        backbone_key, heads_key = jax.random.split(key)
        backbone = visible_infrared.init_backbone(self.backbone, backbone_key, self.config)
        strips = jnp.zeros((1, self.config.model.strips, self.backbone.features))
        heads = jax.jit(lambda k: self.heads.init(k, strips, False))(heads_key)
        return {name: {"backbone": backbone[name], **heads[name]} for name in ("params", "batch_stats")}

    def start(self, variables: Variables) -> Variables:
        """The variables with the weights that ``config.init`` names in the trunk: see `visible_infrared.start`."""
        return visible_infrared.start(variables, self.config)

    def forward(
        self, variables: Variables, batch: Batch, train: bool = False, key: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Runs the networks.

        Args:
          variables: of the method.
          batch: with float ``images`` of one modality [B, H, W, 3] or of both; N of them in all.
          train: normalise by batch statistics and update the running ones.
          key: random key of the dropout; None: no dropout.

        Returns:
          By name, the visible images first: ``maps`` [N, h, w, C], ``strips`` [N, P, C], ``embeddings`` [N, P, E] of
          length one, ``logits`` [N, P, classes]; and the new batch statistics.
        """
        backbone = {name: tree["backbone"] for name, tree in variables.items()}
        heads = {name: {k: v for k, v in tree.items() if k != "backbone"} for name, tree in variables.items()}
        images = visible_infrared.streams(self.facts, batch)
        maps, new = self.backbone.apply(backbone, images, train, mutable=["batch_stats"])
        strips = strip_pool(maps, self.config.model.strips)
        (embeddings, logits), new_heads = self.heads.apply(heads, strips, train, key, mutable=["batch_stats"])
        out = {"maps": maps, "strips": strips, "embeddings": l2_normalise(embeddings), "logits": logits}
        return out, {"backbone": new["batch_stats"], **new_heads["batch_stats"]}

    def strip_losses(self, embeddings: Array, logits: Array, labels: Array) -> tuple[Array, Array]:
        """Cross-entropy and hetero-center loss of every strip.

        Args:
          embeddings: [2 B, P, E] of length one, the visible half first.
          logits: [2 B, P, classes].
          labels: int [B], of both halves.

        Returns:
          Two arrays [P], without weights.
        """
        options = self.config.loss
        entropy = identity.cross_entropy(jnp.moveaxis(logits, 1, 0), jnp.tile(labels, 2), options.label_smoothing)
        halves = jnp.moveaxis(embeddings.reshape(2, len(labels), *embeddings.shape[1:]), 2, 0)
        groups = margins.cut(halves[0], labels, options.grouping, self.config.train.identities_per_batch)
        of_strip = jax.vmap(lambda f: centers.hetero_center(f, groups, options.distance, options.margin))
        return entropy, of_strip(halves)

    def loss(
        self, variables: Variables, batch: Batch, key: Array, step: Array, memory: Mapping[str, Any]
    ) -> tuple[Array, tuple[Terms, dict[str, Any], Mapping[str, Any]]]:
        """Sum over the strips of cross-entropy and hetero-center loss."""
        del step
        options, labels = self.config.loss, batch["identity"]
        out, stats = self.forward(variables, batch, True, key if self.config.model.dropout else None)
        entropy, centers_apart = self.strip_losses(out["embeddings"], out["logits"], labels)
        terms: Terms = {"ce": entropy.sum(), "hc": centers_apart.sum()}
        right = out["logits"].argmax(-1) == jnp.tile(labels, 2)[:, None]
        for name, hits in visible_infrared.by_modality(self.facts, batch, right).items():
            terms[f"accuracy_{name}"] = hits.mean()
        return options.ce_weight * terms["ce"] + options.hc_weight * terms["hc"], (terms, stats, memory)

    def embed(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """``fc_<modality>`` [B, P * E] and ``pool_<modality>`` [B, P * C]; every strip's part has length one."""
        out, _ = self.forward(variables, batch)
        parts = {"fc": out["embeddings"], "pool": l2_normalise(out["strips"])}
        features = {name: part.reshape(part.shape[0], -1) for name, part in parts.items()}
        return visible_infrared.named(self.facts, batch, features)

    def maps(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """The maps that the strips are pooled from, for each modality of the batch: [B, h, w, C]."""
        out, _ = self.forward(variables, batch)
        return visible_infrared.by_modality(self.facts, batch, out["maps"])

    def optimizer(self, params: Any, epoch_ends: np.ndarray) -> optax.GradientTransformation:
        """The backbones at a part of the rate, weight decay on everything."""
        options = self.config.optim
        groups = [optimizers.Group("^backbone/", lr_factor=options.base_lr_factor)]
        return optimizers.build(options, params, epoch_ends, groups)

    def comparisons(self) -> list[Comparison]:
        """Both features both ways."""
        return visible_infrared.comparisons(self.facts, FEATURES, self.config.eval.feature)

    def convert_layouts(self) -> dict[str, Any]:
        """``hetero_center``: the authors' checkpoints."""
        return {"hetero_center": hc_layout.layout(dropout=self.config.model.dropout > 0)}


def build(config: Any, facts: DataFacts) -> HeteroCenter:
    """Builds Hetero-Center from a config such as ``configs/hc_sysu.py``."""
    return HeteroCenter(config, facts)
