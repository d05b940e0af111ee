"""What tri-modal methods on a vision transformer share: one trunk for all modalities, losses of a feature, optimiser.

Since 2025 these systems are built alike: CLIP's ViT-B/16 sees every modality of a sample, the camera is added to the
class token, every feature has a BNNeck, and features before it are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmreid_jax.convert import clip as clip_layout
from mmreid_jax.convert import store
from mmreid_jax.convert import vit as vit_layout
from mmreid_jax.errors import UserError
from mmreid_jax.losses import identity, triplet
from mmreid_jax.methods import modality_sets
from mmreid_jax.methods.base import Array, Batch, DataFacts, Terms, Variables, check_choices, classes_of
from mmreid_jax.models.heads import Necks
from mmreid_jax.models.vit import SIZES, VisionTransformer
from mmreid_jax.training import optimizers


class OnTransformer(modality_sets.ComparesWhole):
    """The part of a method object that is its trunk, necks and optimiser.

    Attributes:
      config: of the experiment (``config.model``, ``loss``, ``optim``, ``train``, ``init``).
      facts: of the training data.
      classes: of every classifier.
      backbone: network shared by the modalities.
      necks: BNNecks by name.
      frozen: patterns of parameters that never change.
    """

    frozen: tuple[str, ...] = ("/bottleneck/bias$",)

    def __init__(self, config: Any, facts: DataFacts, class_tokens: int, all_tokens: bool) -> None:
        """Builds trunk and necks; for `class_tokens` and `all_tokens` see `VisionTransformer`."""
        model = config.model
        self.config = config
        self.facts = facts
        self.classes = classes_of(config, facts)
        check_choices(config, {"model.backbone": (model.backbone, [*SIZES])})
        self.backbone = VisionTransformer(
            SIZES[model.backbone],
            tuple(config.data.image_size),
            side_rows=facts.cameras if model.side_camera else 0,
            side_weight=model.side_weight,
            side_on_class=True,
            class_tokens=class_tokens,
            all_tokens=all_tokens,
            dtype=jnp.dtype(model.dtype) if model.dtype != "float32" else None,
            remat=model.remat,
            implementation=model.attention,
            unroll=model.unroll,
        )
        self.necks = Necks(self.classes)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, columns = self.backbone.grid
        return rows, columns

    def init_backbone(self, key: Array) -> Any:
        """Fresh parameters of the trunk."""
        images = jnp.zeros((1, *self.config.data.image_size, 3))
        return jax.jit(lambda k: self.backbone.init(k, images, jnp.zeros(1, jnp.int32)))(key)["params"]

    def init_necks(self, key: Array, widths: Mapping[str, int]) -> Variables:
        """Fresh variables of the necks of features of these widths."""
        features = {name: jnp.zeros((2, width)) for name, width in widths.items()}
        return jax.jit(lambda k: self.necks.init(k, features, True))(key)

    def start(self, variables: Variables) -> Variables:
        """The variables with ``config.init.backbone`` (CLIP's or ImageNet's weights) in the trunk, if it is set.

        Raises:
          UserError: the weights cannot be read or do not fit.
        """
        if not self.config.init.backbone:
            return variables
        size, tokens = self.backbone.size, self.backbone.class_tokens
        if size.clip:
            layout = clip_layout.image_only(self.grid, projected=size.out > 0, class_tokens=tokens)
        else:
            layout = vit_layout.layout(self.grid, class_tokens=tokens)
        fresh = {"params": variables["params"]["backbone"]}
        loaded, _ = store.open_weights(self.config.init.backbone, layout, fresh)
        return {**variables, "params": {**variables["params"], "backbone": loaded["params"]}}

    def with_missing(self, batch: Batch, key: Array) -> Batch:
        """The training batch in which some samples lack some modalities, their images being zero.

        With the probability ``config.train.missing_modalities`` a sample lacks one of the sets of modalities that leave
        some, each equally likely.
        """
        rate, names = self.config.train.missing_modalities, self.facts.modalities
        if not rate or len(names) < 2:
            return batch
        present = np.array([[name in chosen for name in names] for chosen in modality_sets.subsets(names)[1:]])
        of_sample, of_set = jax.random.split(key)
        size = len(batch["identity"])
        lacking = jax.random.bernoulli(of_sample, rate, (size,))
        chosen = jnp.asarray(present)[jax.random.randint(of_set, (size,), 0, len(present))]
        kept = chosen | ~lacking[:, None]
        images = {
            name: jnp.where(kept[:, number, None, None, None], batch["images"][name], 0)
            for number, name in enumerate(names)
        }
        return {**batch, "images": images}

    def tokens(self, variables: Variables, batch: Batch, train: bool = False) -> Array:
        """What the trunk makes of every modality: [M, B, ...] in the order of the modalities, in at least float32.

        In training it sees the batch in ``config.train.micro_batches`` parts and recomputes them in the backward pass,
        so that memory is that of one of them.
        """
        stacked = jnp.stack([batch["images"][name] for name in self.facts.modalities])
        count, size = stacked.shape[:2]
        side = batch["camera"] if self.backbone.side_rows else None
        parts = self.config.train.micro_batches if train else 1
        if size % parts:
            raise UserError(
                f"config.train.micro_batches={parts} does not divide the batch of {size}; choose a divisor of {size}"
            )

        def embed(images: Array, rows: Array | None) -> Array:
            flat = images.reshape(-1, *images.shape[2:])
            tiled = None if rows is None else jnp.tile(rows, count)
            out: Any = self.backbone.apply({"params": variables["params"]["backbone"]}, flat, tiled)
            return out.reshape(count, -1, *out.shape[1:])

        if parts == 1:
            out = embed(stacked, side)
        else:
            cut = jnp.moveaxis(stacked.reshape(count, parts, size // parts, *stacked.shape[2:]), 1, 0)
            rows = None if side is None else side.reshape(parts, -1)
            made = jax.lax.map(jax.checkpoint(lambda part: embed(*part)), (cut, rows))
            out = jnp.moveaxis(made, 0, 1).reshape(count, size, *made.shape[3:])
        return out.astype(jnp.promote_types(out.dtype, jnp.float32))

    def classified(
        self, variables: Variables, features: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Training logits [B, classes] of features [B, D] by name, and the new statistics of their necks."""
        network = {kind: {name: tree["necks"][name] for name in features} for kind, tree in variables.items()}
        logits: Any
        logits, new = self.necks.apply(network, features, True, mutable=["batch_stats"])
        return logits, dict(new["batch_stats"])

    def terms_of(
        self, features: Mapping[str, Array], logits: Mapping[str, Array], labels: Array
    ) -> tuple[dict[str, Array], Terms]:
        """The loss of every feature, weighted cross-entropy and soft-margin batch-hard triplet, and its terms.

        Returns:
          Weighted sum by name of the feature; ``ce_<name>``, ``triplet_<name>`` and ``accuracy_<name>``.
        """
        options = self.config.loss
        losses: dict[str, Array] = {}
        terms: Terms = {}
        for name, feature in features.items():
            terms[f"ce_{name}"] = identity.cross_entropy(logits[name], labels, options.label_smoothing)
            terms[f"triplet_{name}"] = triplet.batch_hard_triplet(feature, labels)[0]
            terms[f"accuracy_{name}"] = identity.accuracy(logits[name], labels)
            losses[name] = options.ce_weight * terms[f"ce_{name}"] + options.triplet_weight * terms[f"triplet_{name}"]
        return losses, terms

    def optimizer(self, params: Any, epoch_ends: np.ndarray) -> optax.GradientTransformation:
        """New layers at the full rate, their biases at twice it, the transformer slowly; `frozen` ones never change."""
        groups = [optimizers.Group(pattern, frozen=True) for pattern in self.frozen]
        return optimizers.build(self.config.optim, params, epoch_ends, groups)

    def attend(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Attention weights of every modality, each [depth, B, heads, 1 + patches, 1 + patches].

        Of several class tokens the first is shown, without the others.
        """
        network = {"params": variables["params"]["backbone"]}
        side = batch["camera"] if self.backbone.side_rows else None
        shown = np.r_[0, self.backbone.class_tokens : self.backbone.class_tokens + np.prod(self.grid)]
        attend = {}
        for name in self.facts.modalities:
            out: Any = self.backbone.apply(network, batch["images"][name], side, return_attention=True)
            weights = out[1]
            attend[name] = weights[..., shown, :][..., shown]
        return attend
