"""DEEN: diverse embedding expansion for visible-infrared person re-identification.

A ResNet-50 whose stem exists once for each modality. Each of its stages takes something from the map before it, by
channels and by positions; then two branches make two more embeddings of every image. All copies are trained with
cross-entropy and a triplet loss; the new ones are pulled to the centres of the other modality, and from each other. An
image is described by the pooled and the normalised feature of its three copies.

Reference: Zhang and Wang, Diverse Embedding Expansion Network and Low-Light Cross-Modality Benchmark for
Visible-Infrared Person Re-identification, CVPR 2023; the authors' code, which is followed where the paper differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmreid_jax.convert import deen as deen_layout
from mmreid_jax.errors import UserError
from mmreid_jax.losses import expansion, identity, triplet
from mmreid_jax.losses.vectors import l2_normalise
from mmreid_jax.methods import visible_infrared
from mmreid_jax.methods.base import Array, Batch, Comparison, DataFacts, Terms, Variables, check_choices
from mmreid_jax.models.deen import COPIES, ExpandedTwoStream
from mmreid_jax.models.heads import BNNeck
from mmreid_jax.models.layers import near_one
from mmreid_jax.models.resnet import RESNETS, average_pool
from mmreid_jax.training import optimizers

FEATURES = ("all", "fc", "pool")
"""All six features of an image side by side, and the two of its first copy, after and before the neck."""
GROUPINGS = ("by_label", "positional")


class DEEN:
    """The method object; see `mmreid_jax.methods.base.Method` for the interface.

    Attributes:
      config: of the experiment (``config.model``, ``config.loss``, ``config.optim``, ``config.train``, ``config.eval``,
        ``config.init``).
      facts: of the training data; the visible modality comes first.
      backbone: network of both modalities, images -> feature maps of three copies.
      neck: batch norm and classifier of the pooled feature, for all copies together.
    """

    def __init__(self, config: Any, facts: DataFacts) -> None:
        model = config.model
        self.config = config
        self.facts = facts
        self.classes = visible_infrared.check(config, facts)
        check_choices(config, {"loss.grouping": (config.loss.grouping, GROUPINGS)})
        if not any(config.eval.weights):
            raise UserError("config.eval.weights are both 0, so that no feature counts; set one of them above 0")
        self.backbone = ExpandedTwoStream(
            **RESNETS[model.backbone],
            last_stride=model.last_stride,
            expanded=model.expanded,
            dropout=model.dropout,
            dtype=jnp.dtype(model.dtype) if model.dtype != "float32" else None,
            remat=model.remat,
        )
        self.backbone.check_size(*config.data.image_size)
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
        self, variables: Variables, images: Mapping[str, Array], train: bool = False, key: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Runs the network.

        Args:
          variables: of the method.
          images: by stream, ``visible`` [V, H, W, 3] and ``infrared`` [I, H, W, 3] or one of them; N = V + I.
          train: normalise by batch statistics and update the running ones.
          key: random key of the dropout; None: no dropout.

        Returns:
          By name, copy by copy and in each the visible images first: ``maps`` [3 N, h, w, C], ``pool`` [3 N, C], ``fc``
          [3 N, C] and ``logits`` [3 N, classes] after the neck; and the new batch statistics.
        """
        backbone = {name: tree["backbone"] for name, tree in variables.items()}
        heads = {name: {k: v for k, v in tree.items() if k != "backbone"} for name, tree in variables.items()}
        rngs = None if key is None else {"dropout": key}
        maps, new = self.backbone.apply(backbone, images, train, mutable=["batch_stats"], rngs=rngs)
        pooled = average_pool(maps)
        (features, logits), of_neck = self.neck.apply(heads, pooled, train, mutable=["batch_stats"])
        stats = {"backbone": new["batch_stats"], **of_neck["batch_stats"]}
        return {"maps": maps, "pool": pooled, "fc": features, "logits": logits}, stats

    def weighed(self, pooled: Array, logits: Array, labels: Array) -> tuple[dict[str, tuple[float, Array]], Array]:
        """The terms of the loss.

        Args:
          pooled: [6 B, C], rows in the order of `forward`, B of each modality.
          logits: [6 B, classes].
          labels: int [B], of each modality.

        Returns:
          Terms by name, each with its weight: ``ce``, ``triplet``, ``cpm_2`` and ``cpm_3`` (centre-guided pairs of the
          first copy and of another one), ``orthogonality`` of these two; and the share of rows that the triplet loss
          finds in order.
        """
        options, every = self.config.loss, jnp.tile(labels, 2 * COPIES)
        compared, (positive, negative) = triplet.batch_hard_triplet(
            pooled, every, options.triplet_margin, share_ties=True
        )
        copies = pooled.reshape(COPIES, 2, len(labels), pooled.shape[-1])

        def pairs(copy: int) -> tuple[float, Array]:
            term = expansion.center_guided_pairs(
                copies[0, 0],
                copies[0, 1],
                copies[copy, 0],
                copies[copy, 1],
                labels,
                margin=options.cpm_margin,
                grouping=options.grouping,
                num_identities=self.config.train.identities_per_batch,
            )
            return options.cpm_weight, term

        apart = expansion.copy_orthogonality(*(copy.reshape(-1, copy.shape[-1]) for copy in copies[1:]))
        terms = {
            "ce": (options.ce_weight, identity.cross_entropy(logits, every, options.label_smoothing)),
            "triplet": (options.triplet_weight, compared),
            "cpm_2": pairs(1),
            "cpm_3": pairs(2),
            "orthogonality": (options.orthogonality_weight, apart),
        }
        return terms, jnp.mean((negative >= positive).astype(compared.dtype))

    def loss(
        self, variables: Variables, batch: Batch, key: Array, step: Array, memory: Mapping[str, Any]
    ) -> tuple[Array, tuple[Terms, dict[str, Any], Mapping[str, Any]]]:
        """The weighted sum of the terms of `weighed`."""
        del step
        labels = batch["identity"]
        out, stats = self.forward(variables, visible_infrared.streams(self.facts, batch), True, key)
        weighed, ranked = self.weighed(out["pool"], out["logits"], labels)
        total = sum((weight * term for weight, term in weighed.values()), start=jnp.zeros_like(ranked))
        terms: Terms = {**{name: term for name, (_, term) in weighed.items()}, "ranked": ranked}
        of_streams = out["logits"].reshape(COPIES, 2, len(labels), -1)
        for stream, modality in enumerate(self.facts.modalities):
            terms[f"accuracy_{modality}"] = jnp.mean(identity.accuracy(of_streams[:, stream], labels))
        return total, (terms, stats, memory)

    def embed(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """The features of each modality of the batch by name, ``all_<modality>`` and so on, see `FEATURES`.

        With ``config.eval.mirror`` each of the six is the sum of the unit vectors of an image and its mirror image.

        Returns:
          ``all`` [B, 6 C] (with mirror images [B, 6 C + 2], see `side_by_side`), ``fc`` and ``pool`` [B, C].
        """
        images, options = visible_infrared.streams(self.facts, batch), self.config.eval
        units = self._units(variables, images)
        if options.mirror:
            units = units + self._units(variables, {name: x[:, :, ::-1] for name, x in images.items()})
        every = side_by_side(units, options.weights)
        if options.mirror:
            # Sums of two unit vectors.
            largest = 4.0 * COPIES * sum(options.weights)
            visible = images["visible"].shape[0] if "visible" in images else 0
            every = of_one_length(every, largest, jnp.arange(every.shape[0]) < visible)
        features = {"all": every, "pool": units[0], "fc": units[COPIES]}
        return visible_infrared.named(self.facts, batch, features)

    def _units(self, variables: Variables, images: Mapping[str, Array]) -> Array:
        """[6, N, C], rows of length one: the pooled features of the three copies, then those after the neck."""
        out, _ = self.forward(variables, images)
        both = [l2_normalise(out[name]).reshape(COPIES, -1, self.backbone.features) for name in ("pool", "fc")]
        return jnp.concatenate(both)

    def maps(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """The last feature maps of the first copy of each modality of the batch: [B, h, w, C]."""
        out, _ = self.forward(variables, visible_infrared.streams(self.facts, batch))
        first = out["maps"][: len(out["maps"]) // COPIES]
        return visible_infrared.by_modality(self.facts, batch, first)

    def optimizer(self, params: Any, epoch_ends: np.ndarray) -> optax.GradientTransformation:
        """All but neck and classifier at a part of the rate, weight decay on everything, the neck's bias frozen."""
        frozen = optimizers.Group("^bottleneck/bias$", frozen=True)
        return optimizers.build(self.config.optim, params, epoch_ends, [frozen])

    def comparisons(self) -> list[Comparison]:
        """Every feature both ways."""
        return visible_infrared.comparisons(self.facts, FEATURES, self.config.eval.feature)

    def convert_layouts(self) -> dict[str, Any]:
        """``deen``: the authors' checkpoints."""
        network = self.backbone
        return {"deen": deen_layout.layout(network.expanded, network.stages, network.bottleneck)}


def side_by_side(units: Array, weights: Sequence[float]) -> Array:
    """The six features of images as one vector, whose inner product is the score of the authors' code.

    Args:
      units: [6, N, C], the pooled features of the three copies and the normalised ones.
      weights: of the pooled and of the normalised ones in the score, the weighted sum of six inner products.

    Returns:
      [N, 6 C].
    """
    # The product of two features that are multiplied by a root is multiplied by the weight.
    roots = np.sqrt(np.repeat(np.asarray(weights, np.float64), COPIES))
    weighed = units * jnp.asarray(roots, units.dtype)[:, None, None]
    return jnp.swapaxes(weighed, 0, 1).reshape(units.shape[1], -1)


def of_one_length(vectors: Array, largest: float, visible: Array) -> Array:
    """Vectors that are all equally long, with the inner products between modalities that they had before.

    Features of an image and its mirror image together differ in length, so ranks by their inner product are not those
    by the cosine. Two more numbers, one for each modality and 0 for the other, make up for it: between modalities the
    cosine is now the inner product divided by `largest`.

    Args:
      vectors: [N, D].
      largest: squared length that none exceeds.
      visible: bool [N], whether an image is.

    Returns:
      [N, D + 2].
    """
    rest = jnp.sqrt(jnp.maximum(largest - jnp.sum(jnp.square(vectors), axis=1), 0.0))
    return jnp.column_stack([vectors, jnp.where(visible, rest, 0.0), jnp.where(visible, 0.0, rest)])


def build(config: Any, facts: DataFacts) -> DEEN:
    """Builds DEEN from a config such as ``configs/deen_sysu.py``."""
    return DEEN(config, facts)
