"""MMGL's pre-training without labels: permutation recovery and part-aware cycle-contrastive learning (PCC).

Horizontal stripes of a visible and of an infrared image, unrelated to one another, are put together in another order,
the same for both. A two-stream ResNet says from its pooled feature which order it was (global branch), and learns
features of its stripes that find similar ones in the other modality and in their own alike (local branch). The trunk
then starts the supervised networks: ``config.init.from_mmgl``.

Reference: Wan, Jing, Sun, Zhang, Li, Chen, Self-Supervised Modality-Aware Multiple Granularity Pre-Training for
RGB-Infrared Person Re-Identification, arXiv 2112.06147 / TIFS 2023. The authors released no code of this part; what is
the paper's and what is a choice made here is told in ``docs/mmgl.md``, and every choice is an option of the config.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmreid_jax.convert import mmgl as mmgl_layout
from mmreid_jax.errors import UserError
from mmreid_jax.losses import cycle_contrast, permutation
from mmreid_jax.losses.vectors import l2_normalise
from mmreid_jax.methods import visible_infrared
from mmreid_jax.methods.base import Array, Batch, Comparison, DataFacts, Terms, Variables, check_choices
from mmreid_jax.models import stripes
from mmreid_jax.models.resnet import RESNETS, average_pool, part_pool
from mmreid_jax.models.two_stream import MODALITIES, TwoStream
from mmreid_jax.training import optimizers

BORDER_ROWS = 3
"""Rows taken off every stripe's ends where accuracy without continuing edges is measured."""


class MMGL:
    """The method object; see `mmreid_jax.methods.base.Method` for the interface. It reads no label.

    Attributes:
      config: of the experiment (``config.model``, ``config.loss``, ``config.optim``, ``config.train``,
        ``config.init``).
      facts: of the training data; the visible modality comes first, and there are no identities.
      backbone: trunk of both modalities, images -> feature maps.
      order_head: global branch; absent from the variables where ``config.loss.perm_weight`` is 0.
      projections: local branch; absent where ``config.loss.cl_weight`` is 0.
    """

    def __init__(self, config: Any, facts: DataFacts) -> None:
        model, loss = config.model, config.loss
        self.config = config
        self.facts = facts
        if config.data.labels:
            raise UserError(
                "config.data.labels is True, but MMGL learns without labels; set it to False, which hides them"
            )
        visible_infrared.check(config, facts)
        check_choices(
            config,
            {
                "model.proj_head": (model.proj_head, stripes.HEADS),
                "loss.perm_reduction": (loss.perm_reduction, permutation.REDUCTIONS),
            },
        )
        if not 2 <= model.stripes <= permutation.MOST_ASSIGNED:
            raise UserError(
                f"config.model.stripes is {model.stripes}; choose from 2 to {permutation.MOST_ASSIGNED}: all orders of"
                " that many stripes can be compared"
            )
        if loss.perm_weight <= 0 and loss.cl_weight <= 0:
            raise UserError("config.loss.perm_weight and config.loss.cl_weight are both 0: there is nothing to learn")
        # Says at once where the height of the images or the gap of the stripes does not fit.
        height, width = config.data.image_size
        jax.eval_shape(self._pieces, jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32))
        self.contrast = cycle_contrast.CycleContrastOptions(
            temperature=loss.cl_temperature,
            retrieval_temperature=loss.retrieval_temperature or None,
            mode=loss.cl_mode,
            candidate_scope=loss.candidate_scope,
            negative_scope=loss.negative_scope,
            exclude_self=loss.exclude_self,
            query=loss.cl_query,
            stop_gradient=loss.stop_gradient,
        )
        self.backbone = TwoStream(
            **RESNETS[model.backbone],
            shared_from=model.shared_from,
            last_stride=model.last_stride,
            dtype=jnp.dtype(model.dtype) if model.dtype != "float32" else None,
            remat=model.remat,
        )
        self.order_head = stripes.OrderHead(model.stripes, model.perm_head_hidden)
        self.projections = stripes.Projections(model.proj_dim, model.proj_head, model.proj_shared)
        self.comparisons()

    def init(self, key: Array) -> Variables:
        """Fresh variables."""
        of_trunk, of_order, of_stripes = jax.random.split(key, 3)
        trunk = visible_infrared.init_backbone(self.backbone, of_trunk, self.config)
        variables: Variables = {name: {"backbone": tree} for name, tree in trunk.items()}
        pooled = jnp.zeros((2, self.backbone.features))
        if self.config.loss.perm_weight > 0:
            head = jax.jit(self.order_head.init)(of_order, pooled)
            variables["params"]["order"] = head["params"]
        if self.config.loss.cl_weight > 0:
            bands = jnp.repeat(pooled[:, None], self.config.model.stripes, 1)
            head = jax.jit(lambda k: self.projections.init(k, bands, False))(of_stripes)
            for name, tree in head.items():
                variables[name]["projections"] = tree
        return variables

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
          By name, the visible images first: ``maps`` [N, h, w, C], ``pool`` [N, C], of the branches that exist
          ``logits`` [N, S, S] and ``patches`` [N, S, D]; and the new batch statistics.
        """
        trunk = {name: tree["backbone"] for name, tree in variables.items()}
        maps, new = self.backbone.apply(trunk, images, train, mutable=["batch_stats"])
        out, stats = self.heads(variables, maps, train)
        return out, {"backbone": new["batch_stats"], **stats}

    def heads(self, variables: Variables, maps: Array, train: bool = False) -> tuple[dict[str, Array], dict[str, Any]]:
        """What `forward` makes of feature maps [N, h, w, C], and the new statistics of the heads."""
        params, old = variables["params"], variables["batch_stats"]
        out: dict[str, Array] = {"maps": maps, "pool": average_pool(maps)}
        stats: dict[str, Any] = {}
        if "order" in params:
            out["logits"] = cast(Array, self.order_head.apply({"params": params["order"]}, out["pool"]))
        if "projections" in params:
            held = {name: tree["projections"] for name, tree in variables.items() if "projections" in tree}
            exact = maps.astype(jnp.promote_types(maps.dtype, jnp.float32))
            bands = part_pool(exact, self.config.model.stripes)
            patches, new = self.projections.apply(held, bands, train, mutable=["batch_stats"])
            out["patches"] = cast(Array, patches)
            if "projections" in old:
                stats["projections"] = new["batch_stats"]
        return out, stats

    def orders(self, key: Array, pairs: int) -> dict[str, Array]:
        """Random orders int32 [B, S] of the stripes by stream; the same for both images of a pair, if so configured."""
        count, number = permutation.count(self.config.model.stripes), self.config.model.stripes
        keys = dict.fromkeys(MODALITIES, key)
        if not self.config.model.shared_in_pair:
            keys = dict(zip(MODALITIES, jax.random.split(key), strict=True))
        return {
            stream: permutation.unrank(jax.random.randint(key_of, (pairs,), 0, count), number)
            for stream, key_of in keys.items()
        }

    def shuffled(self, images: Array, orders: Array) -> Array:
        """Images [B, H, W, 3] with their stripes in the given orders [B, S], cropped by the configured gap before."""
        return stripes.shuffle(self._pieces(images), orders)

    def _pieces(self, images: Array) -> Array:
        model = self.config.model
        return stripes.without_borders(images, model.stripes, model.stripe_gap)

    def loss(
        self, variables: Variables, batch: Batch, key: Array, step: Array, memory: Mapping[str, Any]
    ) -> tuple[Array, tuple[Terms, dict[str, Any], Mapping[str, Any]]]:
        """Permutation recovery and, from step ``config.loss.cl_start`` on, PCC over the whole batch."""
        images = visible_infrared.streams(self.facts, batch)
        pairs = len(images[MODALITIES[0]])
        of_orders, of_noise = jax.random.split(key)
        drawn = self.orders(of_orders, pairs)
        out, stats = self.forward(
            variables, {stream: self.shuffled(rows, drawn[stream]) for stream, rows in images.items()}, True
        )
        total, terms = self.objective(out, drawn, of_noise, step)
        return total, (terms, stats, memory)

    def objective(
        self, out: Mapping[str, Array], orders: Mapping[str, Array], key: Array, step: Array
    ) -> tuple[Array, Terms]:
        """The loss, and its terms by name.

        Args:
          out: of `forward`, in training.
          orders: int [B, S] by stream.
          key: of the noise, where the config wants any.
          step: number of the step.
        """
        options = self.config.loss
        terms: Terms = {}
        total = jnp.zeros((), jnp.promote_types(out["pool"].dtype, jnp.float32))
        if "logits" in out:
            term, recovery_terms = self.recovery(out["logits"], orders, key)
            terms.update(recovery_terms)
            total += options.perm_weight * term
        if "patches" in out:
            visible, infrared = jnp.split(out["patches"], 2)
            term, details = cycle_contrast.cycle_contrast(visible, infrared, self.contrast)
            total += jnp.where(step >= options.cl_start, options.cl_weight, 0.0).astype(total.dtype) * term
            terms["pcc"] = term
            terms.update({f"pcc_{name}": value for name, value in details.items()})
            terms.update(cycle_contrast.health(visible, infrared))
        return total, terms

    def recovery(self, logits: Array, orders: Mapping[str, Array], key: Array) -> tuple[Array, Terms]:
        """The loss of permutation recovery.

        Args:
          logits: [2B, S, S], visible images first.
          orders: int [B, S] by stream.
          key: of the noise, where the config wants any.

        Returns:
          The loss; and by name the loss and the shares of orders, stripes and rows told right, per modality.
        """
        options = self.config.loss
        every = jnp.concatenate([orders[stream] for stream in MODALITIES])
        truth = permutation.matrices(every, logits.dtype)
        recover = lambda z: permutation.sinkhorn(z, options.sinkhorn_iterations, options.sinkhorn_temperature)  # noqa: E731
        predicted = recover(logits)
        if options.sinkhorn_noise:
            noisy = recover(permutation.noisy(logits, key, options.sinkhorn_samples, options.sinkhorn_noise))
            term = permutation.permutation_loss(noisy, truth, options.perm_reduction)
        else:
            term = permutation.permutation_loss(predicted, truth, options.perm_reduction)
        terms: Terms = {"perm": term}
        for name, right in permutation.accuracies(predicted, every).items():
            halves = zip(self.facts.modalities, jnp.split(right, 2), strict=True)
            terms.update({f"{name}_{modality}": share.mean() for modality, share in halves})
        return term, terms

    def examine(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """How well orders are recovered in evaluation mode, with orders that depend on ``batch["index"]`` alone.

        Returns:
          For every modality of the batch numbers [B] between 0 and 1: ``exact_<modality>``, whether the whole order is
          right, ``stripe_<modality>`` and ``row_<modality>``, shares of stripes right in the best assignment and of
          rows with the right maximum; ``gap_<modality>``, ``exact`` of stripes without their `BORDER_ROWS` outermost
          rows, and ``mixed_<modality>``, ``exact`` of images of which every stripe is another's: there no edge goes
          on across a cut, and nothing but the content tells the order.
        """
        if "order" not in variables["params"]:
            return {}
        number = self.config.model.stripes
        orders = self._fixed_orders(batch["index"])
        shares: dict[str, Array] = {}
        for modality, images in batch["images"].items():
            rows = min(BORDER_ROWS, (images.shape[1] // number - 1) // 2)
            others = (jnp.arange(len(images))[:, None] + jnp.arange(number)) % len(images)
            mixed = stripes.cut(images, number)[others, jnp.arange(number)]
            kinds = {
                "": images,
                "gap": stripes.without_borders(images, number, rows),
                "mixed": stripes.joined(mixed),
            }
            for kind, pictures in kinds.items():
                predicted = self._recovered(variables, modality, pictures, orders)["predicted"]
                right = permutation.accuracies(predicted, orders)
                names = {kind: right["exact"]} if kind else right
                shares.update({f"{name}_{modality}": value for name, value in names.items()})
        return shares

    def explain(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """What a picture of the task wants to show of a batch of one modality, with the orders of `examine`.

        Returns:
          ``orders`` and ``assigned`` int [B, S], drawn and recovered; ``predicted`` [B, S, S]; ``patches`` [B, S, D] of
          length one; of the branches that exist.
        """
        orders = self._fixed_orders(batch["index"])
        ((modality, images),) = batch["images"].items()
        return {"orders": orders, **self._recovered(variables, modality, images, orders)}

    def _fixed_orders(self, index: Array) -> Array:
        draw = lambda i: jax.random.randint(  # noqa: E731
            jax.random.fold_in(jax.random.key(0), i), (), 0, permutation.count(self.config.model.stripes)
        )
        return permutation.unrank(jax.vmap(draw)(index), self.config.model.stripes)

    def _recovered(self, variables: Variables, modality: str, images: Array, orders: Array) -> dict[str, Array]:
        """What the network makes of the images [B, H, W, 3] of a modality, shuffled, in evaluation mode."""
        stream = MODALITIES[self.facts.modalities.index(modality)]
        out, _ = self.forward(variables, {stream: self.shuffled(images, orders)})
        recovered: dict[str, Array] = {}
        if "logits" in out:
            options = self.config.loss
            recovered["predicted"] = permutation.sinkhorn(
                out["logits"], options.sinkhorn_iterations, options.sinkhorn_temperature
            )
            recovered["assigned"] = permutation.assign(recovered["predicted"])
        if "patches" in out:
            recovered["patches"] = l2_normalise(out["patches"])
        return recovered

    def embed(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """``pool_<modality>`` [B, C], the pooled feature of images in their own order, of length one."""
        out, _ = self.forward(variables, visible_infrared.streams(self.facts, batch))
        return visible_infrared.named(self.facts, batch, {"pool": l2_normalise(out["pool"])})

    def maps(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """The last feature maps of each modality of the batch: [B, h, w, C]."""
        out, _ = self.forward(variables, visible_infrared.streams(self.facts, batch))
        return visible_infrared.by_modality(self.facts, batch, out["maps"])

    def optimizer(self, params: Any, epoch_ends: np.ndarray) -> optax.GradientTransformation:
        """One rate for everything: nothing is trained before."""
        return optimizers.build(self.config.optim, params, epoch_ends)

    def comparisons(self) -> list[Comparison]:
        """The pooled feature both ways."""
        return visible_infrared.comparisons(self.facts, ("pool",), self.config.eval.feature)

    def convert_layouts(self) -> dict[str, Any]:
        """``mmgl``: flat files in the names that the authors' trainers read."""
        model, loss, network = self.config.model, self.config.loss, self.backbone
        return {
            "mmgl": mmgl_layout.layout(
                network.stages,
                network.bottleneck,
                network.shared_from,
                hidden=bool(model.perm_head_hidden) if loss.perm_weight > 0 else None,
                head=model.proj_head if loss.cl_weight > 0 else None,
                shared=model.proj_shared,
            )
        }


def build(config: Any, facts: DataFacts) -> MMGL:
    """Builds MMGL from a config such as ``configs/mmgl_sysu.py``."""
    return MMGL(config, facts)
