"""AGW, and the Base network that it improves on: two-stream baselines of visible-infrared re-identification.

On data of one modality, with ``config.model.shared_from`` = 0, it is the one-stream AGW of the same paper.

A ResNet-50 whose stem exists once for each modality, pooled, with a batch norm and a classifier; trained with
cross-entropy and a triplet loss over both modalities. AGW adds non-local blocks, generalised-mean pooling and a
weighted triplet loss; each is a switch of the config, and Base has none of them.

Reference: Ye, Shen, Lin, Xiang, Shao, Hoi. Deep Learning for Person Re-identification: A Survey and Outlook, TPAMI
2021, section 4; the authors' Cross-Modal-Re-ID-baseline, whose code is followed where the paper differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmreid_jax.convert import two_stream as two_stream_layout
from mmreid_jax.errors import UserError
from mmreid_jax.losses import identity, triplet, weighted_triplet
from mmreid_jax.losses.vectors import l2_normalise
from mmreid_jax.methods import visible_infrared
from mmreid_jax.methods.base import Array, Batch, Comparison, DataFacts, Terms, Variables, check_choices
from mmreid_jax.models.heads import BNNeck
from mmreid_jax.models.layers import near_one
from mmreid_jax.models.resnet import RESNETS, average_pool, gem_pool_agw
from mmreid_jax.models.two_stream import MODALITIES, TwoStream
from mmreid_jax.training import optimizers

POOLINGS = ("avg", "gem")
Weighed = dict[str, tuple[float, Array]]
"""Terms of a loss by name, each with its weight."""


class AGW:
    """The method object; see `mmreid_jax.methods.base.Method` for the interface.

    Methods on the same network override `training_images`, `triplet_loss`, `weighed` or `embed`.

    Attributes:
      config: of the experiment (``config.model``, ``config.loss``, ``config.optim``, ``config.train``,
        ``config.init``).
      facts: of the training data; the visible modality comes first, or is the only one.
      backbone: network of both modalities, images -> feature maps.
      neck: batch norm and classifier of the pooled feature.
    """

    triplets: tuple[str, ...] = ("batch_hard", "weighted")
    """What ``config.loss.triplet`` may be."""
    features: tuple[str, ...] = ("fc", "pool")
    """Names of the features after and before the neck."""
    one_spectrum: bool = True
    """Whether it can be trained on one modality alone."""

    def __init__(self, config: Any, facts: DataFacts) -> None:
        model, loss = config.model, config.loss
        self.config = config
        self.facts = facts
        self.classes = visible_infrared.check(config, facts, one_spectrum=self.one_spectrum)
        check_choices(
            config,
            {
                "model.pooling": (model.pooling, POOLINGS),
                "loss.triplet": (loss.triplet, self.triplets),
                "loss.triplet_form": (loss.triplet_form, weighted_triplet.FORMS),
            },
        )
        stages = RESNETS[model.backbone]["stages"]
        if model.pooling == "gem" and (len(stages), stages[-1] - 1) in map(tuple, model.non_local):
            raise UserError(
                f"config.model.non_local is {model.non_local}, but what comes out of a non-local block after the last "
                f"bottleneck of {model.backbone} can be negative, and has no generalised mean; put it before another "
                "bottleneck, or set config.model.pooling to avg"
            )
        self.backbone = TwoStream(
            **RESNETS[model.backbone],
            shared_from=model.shared_from,
            non_local=tuple((stage, block) for stage, block in model.non_local),
            last_stride=model.last_stride,
            dtype=jnp.dtype(model.dtype) if model.dtype != "float32" else None,
            remat=model.remat,
        )
        self.neck = BNNeck(self.classes, scale_init=near_one)
        self.comparisons()

    def init(self, key: Array) -> Variables:
        """Fresh variables."""
        of_neck, of_backbone = jax.random.split(key)
        pooled = jnp.zeros((1, self.backbone.features))
        neck = jax.jit(lambda k: self.neck.init(k, pooled, False))(of_neck)
        backbone = visible_infrared.init_backbone(self.backbone, of_backbone, self.config)
        return {name: {"backbone": tree, **neck[name]} for name, tree in backbone.items()}

    def start(self, variables: Variables) -> Variables:
        """The variables with the weights that ``config.init`` names in the trunk: see `visible_infrared.start`."""
        return visible_infrared.start(variables, self.config)

    def forward(
        self, variables: Variables, images: Mapping[str, Array], train: bool = False
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Runs the network.

        Args:
          variables: of the method.
          images: by stream, ``visible`` [V, H, W, 3] and ``infrared`` [I, H, W, 3] or one of them; N = V + I.
          train: normalise by batch statistics and update the running ones.

        Returns:
          By name, the visible images first: ``maps`` [N, h, w, C], ``pool`` [N, C], ``fc`` [N, C] and ``logits``
          [N, classes] after the neck; and the new batch statistics.
        """
        params, old = variables["params"], variables["batch_stats"]
        backbone = {"params": params["backbone"], "batch_stats": old["backbone"]}
        maps, new = self.backbone.apply(backbone, images, train, mutable=["batch_stats"])
        neck = {
            "params": {name: params[name] for name in ("bottleneck", "classifier")},
            "batch_stats": {"bottleneck": old["bottleneck"]},
        }
        pooled = self._pool(maps)
        (features, logits), of_neck = self.neck.apply(neck, pooled, train, mutable=["batch_stats"])
        stats = {"backbone": new["batch_stats"], **of_neck["batch_stats"]}
        return {"maps": maps, "pool": pooled, "fc": features, "logits": logits}, stats

    def _pool(self, maps: Array) -> Array:
        if self.config.model.pooling == "avg":
            return average_pool(maps)
        return gem_pool_agw(maps.astype(jnp.promote_types(maps.dtype, jnp.float32)), self.config.model.gem_power)

    def training_images(self, batch: Batch, key: Array) -> dict[str, Array]:
        """What the network sees of a training batch by stream: a multiple of B images each, in the batch's order."""
        del key
        return visible_infrared.streams(self.facts, batch)

    def triplet_loss(self, features: Array, labels: Array) -> tuple[Array, tuple[Array, Array]]:
        """The triplet loss of pooled features [N, C], and the two distances [N] of every sample that it compares."""
        options = self.config.loss
        if options.triplet == "weighted":
            return weighted_triplet.weighted_triplet(features, labels, form=options.triplet_form)
        return triplet.batch_hard_triplet(features, labels, options.triplet_margin, share_ties=True)

    def weighed(self, logits: Mapping[str, Array], labels: Mapping[str, Array]) -> Weighed:
        """Terms of the loss on the logits [n, classes] of the streams with labels int [n], but for the triplet's."""
        options = self.config.loss
        every, of_every = (jnp.concatenate([x[name] for name in MODALITIES if name in x]) for x in (logits, labels))
        return {"ce": (options.ce_weight, identity.cross_entropy(every, of_every, options.label_smoothing))}

    def loss(
        self, variables: Variables, batch: Batch, key: Array, step: Array, memory: Mapping[str, Any]
    ) -> tuple[Array, tuple[Terms, dict[str, Any], Mapping[str, Any]]]:
        """Cross-entropy, and a triplet loss on the pooled features before the neck, over all modalities."""
        del step
        images = self.training_images(batch, key)
        out, stats = self.forward(variables, images, True)
        labels = {
            stream: jnp.tile(batch["identity"], len(rows) // len(batch["identity"])) for stream, rows in images.items()
        }
        present = [stream for stream in MODALITIES if stream in images]
        split = jnp.split(out["logits"], [len(images[stream]) for stream in present[:-1]])
        logits = dict(zip(present, split, strict=True))
        every = jnp.concatenate([labels[stream] for stream in present])
        compared, (positive, negative) = self.triplet_loss(out["pool"], every)
        weighed_terms = {**self.weighed(logits, labels), "triplet": (self.config.loss.triplet_weight, compared)}
        total = sum((weight * term for weight, term in weighed_terms.values()), start=jnp.zeros_like(compared))
        terms: Terms = {name: term for name, (_, term) in weighed_terms.items()}
        terms["ranked"] = jnp.mean((negative >= positive).astype(total.dtype))
        for stream, modality in zip(present, self.facts.modalities, strict=True):
            terms[f"accuracy_{modality}"] = identity.accuracy(logits[stream], labels[stream])
        return total, (terms, stats, memory)

    def embed(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """``fc_<modality>`` (after the neck) and ``pool_<modality>`` (before it), [B, C] of length one."""
        out, _ = self.forward(variables, visible_infrared.streams(self.facts, batch))
        return visible_infrared.named(self.facts, batch, {name: l2_normalise(out[name]) for name in self.features})

    def maps(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """The last feature maps of each modality of the batch: [B, h, w, C]."""
        out, _ = self.forward(variables, visible_infrared.streams(self.facts, batch))
        return visible_infrared.by_modality(self.facts, batch, out["maps"])

    def optimizer(self, params: Any, epoch_ends: np.ndarray) -> optax.GradientTransformation:
        """Trunk and new layers at the rates of ``config.optim``, weight decay on everything, the neck's bias frozen."""
        frozen = optimizers.Group("^bottleneck/bias$", frozen=True)
        return optimizers.build(self.config.optim, params, epoch_ends, [frozen])

    def comparisons(self) -> list[Comparison]:
        """Both features both ways."""
        return visible_infrared.comparisons(self.facts, self.features, self.config.eval.feature)

    def convert_layouts(self) -> dict[str, Any]:
        """``agw``: the authors' checkpoints."""
        network = self.backbone
        options = network.non_local, network.stages, network.bottleneck, network.shared_from
        return {"agw": two_stream_layout.layout(*options)}


def build(config: Any, facts: DataFacts) -> AGW:
    """Builds Base or AGW from a config such as ``configs/agw_sysu.py``."""
    return AGW(config, facts)
