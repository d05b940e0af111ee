"""HTT: heterogeneous test-time training for multi-modal person re-identification.

One backbone shared by the modalities, a BNNeck on the concatenation of their features; trained with cross-entropy,
batch-hard triplet, 3M and CIM losses; adapted at test time with 3M and CIM on pseudo labels.

Reference: Wang, Huang, Zheng, He. Heterogeneous Test-Time Training for Multi-Modal Person Re-identification, AAAI 2024;
files ``model/make_model.py``, ``loss/make_loss.py`` and ``processor/processor.py`` of the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmreid_jax.convert import clip as clip_layout
from mmreid_jax.convert import htt as htt_layout
from mmreid_jax.convert import resnet as resnet_layout
from mmreid_jax.convert import store
from mmreid_jax.convert import vit as vit_layout
from mmreid_jax.errors import UserError
from mmreid_jax.losses import adaptation, centers, identity, margins, triplet
from mmreid_jax.methods import modality_sets
from mmreid_jax.methods.base import Array, Batch, DataFacts, Terms, Variables, check_choices, classes_of
from mmreid_jax.models.heads import BNNeck
from mmreid_jax.models.resnet import RESNETS, ResNet, average_pool
from mmreid_jax.models.vit import SIZES, VisionTransformer, side_information_rows
from mmreid_jax.training import optimizers

HEADS: dict[str, Callable[..., Array] | None] = {
    "linear": None,
    "arcface": identity.arcface_logits,
    "cosface": identity.cosface_logits,
    "circle": identity.circle_logits,
}
"""Classifier of ``config.model.head`` -> its logits; None: those of the neck."""


class HTT(modality_sets.ComparesWhole):
    """The method object; see `mmreid_jax.methods.base.Method` for the interface.

    Attributes:
      config: of the experiment (``config.model``, ``config.loss``, ``config.mtt``, ``config.optim``, ``config.init``).
      facts: of the training data.
      backbone: network shared by the modalities.
      neck: BNNeck on the concatenated features.
    """

    statistics_feature = "before"

    def __init__(self, config: Any, facts: DataFacts) -> None:
        model = config.model
        self.config = config
        self.facts = facts
        self.classes = classes_of(config, facts)
        self.image_size = tuple(config.data.image_size)
        self.micro_batches = config.train.micro_batches
        check_choices(
            config, {"model.head": (model.head, [*HEADS]), "model.backbone": (model.backbone, [*SIZES, *RESNETS])}
        )
        dtype = jnp.dtype(model.dtype) if model.dtype != "float32" else None
        self.neck = BNNeck(self.classes)
        self.is_vit = model.backbone in SIZES
        if self.is_vit:
            size = SIZES[model.backbone]
            self.backbone: Any = VisionTransformer(
                size,
                self.image_size,
                stride=model.stride or size.patch,
                drop_path=model.drop_path,
                side_rows=side_information_rows(self.cameras, self.views),
                side_weight=model.side_weight,
                dtype=dtype,
                remat=model.remat,
                implementation=model.attention,
                unroll=model.unroll,
            )
            self.width = self.backbone.features
        else:
            # Each modality is normalised by its own statistics, and the running ones are updated once for each.
            layout = RESNETS[model.backbone]
            self.backbone = ResNet(
                **layout, last_stride=model.last_stride, stem="transreid", dtype=dtype, remat=model.remat
            )
            self.width = self.backbone.features

    @property
    def cameras(self) -> int:
        """Cameras that the side information tells apart (0: none)."""
        return self.facts.cameras if self.config.model.side_camera else 0

    @property
    def views(self) -> int:
        """Views that the side information tells apart (0: none)."""
        return self.facts.views if self.config.model.side_view else 0

    def init(self, key: Array) -> Variables:
        """Fresh variables."""
        backbone_key, neck_key, center_key = jax.random.split(key, 3)
        images = jnp.zeros((1, *self.image_size, 3))
        if self.is_vit:
            side = jnp.zeros(1, jnp.int32)
            backbone = jax.jit(lambda k: self.backbone.init(k, images, side))(backbone_key)
        else:
            backbone = jax.jit(lambda k: self.backbone.init(k, images, True))(backbone_key)
        concatenated = jnp.zeros((2, self.width * len(self.facts.modalities)))
        neck = self.neck.init(neck_key, concatenated, True)
        params = {"backbone": backbone["params"], **neck["params"]}
        if self.config.loss.center_weight:
            params["centers"] = jax.random.normal(center_key, (self.classes, concatenated.shape[-1]))
        stats = dict(neck["batch_stats"])
        if "batch_stats" in backbone:
            stats["backbone"] = backbone["batch_stats"]
        return {"params": params, "batch_stats": stats}

    def start(self, variables: Variables) -> Variables:
        """The variables with ``config.init.backbone`` (ImageNet's or CLIP's weights) in the backbone, if it is set."""
        if not self.config.init.backbone:
            return variables
        if not self.is_vit:
            layout = resnet_layout.layout()
        elif self.backbone.size.clip:
            layout = clip_layout.image_only(self.backbone.grid, projected=self.backbone.size.out > 0)
        else:
            layout = vit_layout.layout(self.backbone.grid)
        fresh = {name: tree["backbone"] for name, tree in variables.items() if "backbone" in tree}
        loaded, _ = store.open_weights(self.config.init.backbone, layout, fresh)
        return {name: {**tree, "backbone": loaded[name]} if name in fresh else tree for name, tree in variables.items()}

    def _side(self, batch: Batch) -> Array | None:
        """Row of the side-information table per sample: camera * views + view, or whichever is on."""
        if not (self.is_vit and self.backbone.side_rows):
            return None
        row = jnp.zeros_like(batch["camera"])
        if self.cameras > 1:
            row = batch["camera"]
        if self.views > 1:
            row = row * self.views + jnp.clip(batch["scene"], 0, self.views - 1)
        return row

    def features(
        self, variables: Variables, batch: Batch, train: bool = False, key: Array | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Backbone features of every modality, not normalised.

        Args:
          variables: of the method.
          batch: with float ``images`` {modality: [B, H, W, 3]}.
          train: batch statistics and, with `key`, stochastic depth.
          key: random key.

        Returns:
          Features [M, B, D] in the order of the modalities, in at least float32, and the new backbone statistics.
        """
        stacked = jnp.stack([batch["images"][name] for name in self.facts.modalities])
        count, size = stacked.shape[:2]
        side = self._side(batch)
        keep = self.backbone.draw_drop_path(key, count * size) if train and self.is_vit and key is not None else None
        parts = self.micro_batches if train else 1
        if size % parts:
            raise UserError(
                f"config.train.micro_batches={parts} does not divide the batch of {size}; choose a divisor of {size}"
            )
        stats = variables["batch_stats"].get("backbone", {})

        def embed(carry: Any, part: tuple[Array, Array | None, Array | None]) -> tuple[Any, Array]:
            images, rows, multipliers = part
            flat = images.reshape(-1, *images.shape[2:])
            if self.is_vit:
                rows = None if rows is None else jnp.tile(rows, count)
                kept = None if multipliers is None else multipliers.reshape(*multipliers.shape[:2], -1)
                return carry, self.backbone.apply({"params": variables["params"]["backbone"]}, flat, rows, kept)
            network = {"params": variables["params"]["backbone"], "batch_stats": carry}
            if not train:
                return carry, average_pool(self.backbone.apply(network, flat, False))
            by_modality = self.backbone.clone(groups=count)
            maps, new = by_modality.apply(network, flat, True, mutable=["batch_stats"])
            return new["batch_stats"], average_pool(maps)

        if keep is not None:
            keep = keep.reshape(*keep.shape[:2], count, size)
        if parts == 1:
            stats, flat = embed(stats, (stacked, side, keep))
            out = flat.reshape(count, size, -1)
        else:
            # The backbone sees micro-batches and recomputes them in the backward pass, so that memory is that of one of
            # them; the losses, and the mining inside them, see the features of the whole batch.
            cut = size // parts
            split = (
                jnp.moveaxis(stacked.reshape(count, parts, cut, *stacked.shape[2:]), 1, 0),
                None if side is None else side.reshape(parts, cut),
                None if keep is None else jnp.moveaxis(keep.reshape(*keep.shape[:3], parts, cut), 3, 0),
            )
            stats, flat = jax.lax.scan(jax.checkpoint(embed), stats, split)
            out = jnp.moveaxis(flat.reshape(parts, count, cut, -1), 0, 1).reshape(count, size, -1)
        return out.astype(jnp.promote_types(out.dtype, jnp.float32)), stats

    def head(self, variables: Variables, features: Array, train: bool) -> tuple[Array, Array, Array, dict[str, Any]]:
        """Features [M, B, D] -> concatenation, its BNNeck feature, logits, new statistics of the neck."""
        concatenated = jnp.concatenate(list(features), axis=-1)
        network: dict[str, Any] = {
            "params": {name: variables["params"][name] for name in ("bottleneck", "classifier")},
            "batch_stats": {"bottleneck": variables["batch_stats"]["bottleneck"]},
        }
        outputs: Any
        if not train:
            outputs = self.neck.apply(network, concatenated, False)
            return concatenated, *outputs, network["batch_stats"]
        outputs, new = self.neck.apply(network, concatenated, True, mutable=["batch_stats"])
        return concatenated, *outputs, dict(new["batch_stats"])

    def _statistics(self, backbone: Any, neck: Any) -> dict[str, Any]:
        return {**neck, **({"backbone": backbone} if backbone else {})}

    def _logits(self, variables: Variables, after: Array, linear: Array, labels: Array) -> Array:
        """Logits of the configured head; the margin heads compare directions instead of taking products."""
        options = self.config.model
        function = HEADS[options.head]
        if function is None:
            return linear
        weight = variables["params"]["classifier"]["kernel"]
        return function(after, weight, labels, scale=options.head_scale, margin=options.head_margin)

    def loss(
        self, variables: Variables, batch: Batch, key: Array, step: Array, memory: Mapping[str, Any]
    ) -> tuple[Array, tuple[Terms, dict[str, Any], Mapping[str, Any]]]:
        """Total = CE + triplet + 0.5 3M + 0.5 CIM (weights from ``config.loss``), all on the global batch."""
        del step
        weights, labels = self.config.loss, batch["identity"]
        features, backbone_stats = self.features(variables, batch, train=True, key=key)
        concatenated, after, linear, neck_stats = self.head(variables, features, train=True)
        logits = self._logits(variables, after, linear, labels)
        shared = {"grouping": weights.grouping, "num_identities": self.config.train.identities_per_batch}
        terms: Terms = {}
        total = jnp.zeros((), concatenated.dtype)

        def add(name: str, weight: float, value: Array) -> Array:
            terms[name] = value
            return total + weight * value

        if weights.ce_weight:
            total = add("ce", weights.ce_weight, identity.cross_entropy(logits, labels, weights.label_smoothing))
        if weights.triplet_weight:
            margin = None if weights.triplet_margin < 0 else weights.triplet_margin
            total = add("triplet", weights.triplet_weight, triplet.batch_hard_triplet(concatenated, labels, margin)[0])
        if weights.mmm_weight:
            value = margins.three_modal_margin_loss(features, labels, margin=weights.mmm_margin, **shared)
            total = add("mmm", weights.mmm_weight, value)
        if weights.cim_weight:
            value = margins.cross_identity_margin_loss(features, labels, margin=weights.cim_margin, **shared)
            total = add("cim", weights.cim_weight, value)
        if weights.center_weight:
            value = centers.center_loss(concatenated, labels, variables["params"]["centers"])
            total = add("center", weights.center_weight, value)
        terms["accuracy"] = (logits.argmax(-1) == labels).mean()
        return total, (terms, self._statistics(backbone_stats, neck_stats), memory)

    def adapt_loss(
        self, variables: Variables, batch: Batch, key: Array, step: Array, memory: Mapping[str, Any]
    ) -> tuple[Array, tuple[Terms, dict[str, Any], Mapping[str, Any]]]:
        """Multi-modal test-time training: 3M + CIM on the pseudo labels of this forward pass; no true label is read."""
        del step
        options = self.config.mtt
        # Statistics of two images are poor ones. They touch the neck alone in the authors' transformer, but every layer
        # of a ResNet, which can keep those of its training instead.
        follows = options.statistics == "batch"
        features, backbone_stats = self.features(variables, batch, train=follows or self.is_vit, key=key)
        _, _, logits, neck_stats = self.head(variables, features, train=follows)
        _, parts = adaptation.mtt_loss(
            features,
            logits,
            form=options.form,
            three_modal_width=options.mmm_margin,
            cross_identity_width=options.cim_margin,
        )
        terms = {"mmm": parts["three_modal"], "cim": parts["cross_identity"]}
        total = options.mmm_weight * terms["mmm"] + options.cim_weight * terms["cim"]
        return total, (terms, self._statistics(backbone_stats, neck_stats), memory)

    def embed(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Features [B, M * D] ``after`` and ``before`` the BNNeck, and those of every modality [B, D] by its name."""
        features, _ = self.features(variables, batch)
        concatenated, after, _, _ = self.head(variables, features, train=False)
        return {"after": after, "before": concatenated, **dict(zip(self.facts.modalities, features, strict=True))}

    def with_statistics(self, variables: Variables, features: np.ndarray) -> Variables:
        """Variables whose neck normalises by the statistics of the given ``before`` features [N, M * D]."""
        old = variables["batch_stats"]["bottleneck"]
        new = {"mean": features.mean(0), "var": features.var(0, ddof=1), "count": old["count"]}
        cast = {name: jnp.asarray(value, old[name].dtype) for name, value in new.items()}
        return {**variables, "batch_stats": {**variables["batch_stats"], "bottleneck": cast}}

    def optimizer(self, params: Any, epoch_ends: np.ndarray) -> optax.GradientTransformation:
        """SGD (or Adam) in HTT's groups: biases learn at twice the rate, the bias of the neck not at all."""
        frozen = [optimizers.Group("^bottleneck/bias$", frozen=True)]
        return optimizers.build(self.config.optim, params, epoch_ends, frozen)

    def adapt_optimizer(self, params: Any, epoch_ends: np.ndarray) -> optax.GradientTransformation:
        """As `optimizer`, for the backbone alone: what has no gradient here gets no decay and no momentum either."""
        frozen = [optimizers.Group("^(?!backbone/)", frozen=True)]
        return optimizers.build(self.config.mtt.optim, params, epoch_ends, frozen)

    def convert_layouts(self) -> dict[str, Any]:
        """``htt``: the authors' checkpoints; there are none on CLIP's backbones."""
        if self.is_vit and self.backbone.size.clip:
            return {}
        if not self.is_vit:
            return {"htt": htt_layout.layout("resnet")}
        return {"htt": htt_layout.layout("vit", self.backbone.grid)}


class HTTOnTransformer(HTT):
    """HTT on a ViT."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, columns = self.backbone.grid
        return rows, columns

    def attend(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Attention weights of every modality, each [depth, B, heads, 1 + patches, 1 + patches]."""
        network = {"params": variables["params"]["backbone"]}
        side = self._side(batch)
        attend = {}
        for name in self.facts.modalities:
            _, attend[name] = self.backbone.apply(network, batch["images"][name], side, return_attention=True)
        return attend


class HTTOnResNet(HTT):
    """HTT on a ResNet."""

    def maps(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Last feature maps of every modality, each [B, h, w, D]."""
        network = {name: variables[name]["backbone"] for name in ("params", "batch_stats")}
        return {name: self.backbone.apply(network, batch["images"][name], False) for name in self.facts.modalities}


def build(config: Any, facts: DataFacts) -> HTT:
    """Builds HTT from a config such as ``configs/htt_rgbnt201.py``."""
    return (HTTOnTransformer if config.model.backbone in SIZES else HTTOnResNet)(config, facts)
